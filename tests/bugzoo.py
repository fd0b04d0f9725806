"""Planted bugs. A test suite that does not notice them is not finished.

Each is a small edit of our source, of the kind that people really make (many are from the issue
lists of other engines), and names the test that must fail under it. The edit is done on a copy
of the function in memory. When the source changes so that an edit no longer fits, `plant` says so:
write the bug anew.
"""

from __future__ import annotations
import __future__

import gc
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import test_activation
import test_autograd
import test_autograd_memory
import test_debug
import test_graph_machine
import test_kernels_norm
import test_kinks
import test_nn_weights
import test_norm
import test_ops
import test_optim
import test_optim_games
import test_recompute
import test_tensor
import test_versions
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from numpy.random import default_rng
from specs import ALL


@dataclass(frozen=True)
class Bug:
    """`old` becomes `new` in the source of `place` ("module:function" or "module:Class.method")."""

    name: str
    place: str
    old: str
    new: str
    caught_by: Callable[[], None]


REPLACED: dict[Any, Any] = {}  # functions that a planted bug stands for: specs keep the original


def plant(patch: pytest.MonkeyPatch, bug: Bug) -> None:
    """Put the edited function in the place of the original, until `patch` is undone."""
    module_name, _, path = bug.place.partition(":")
    module = importlib.import_module(module_name)
    owner: Any = module
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original = vars(owner)[name]
    source = textwrap.dedent(inspect.getsource(original))
    assert source.count(bug.old) == 1, f"bug '{bug.name}' no longer fits the source of {bug.place}"
    flags = __future__.annotations.compiler_flag
    code = compile(source.replace(bug.old, bug.new), f"<{bug.name}>", "exec", flags)
    scope: dict[str, Any] = {}
    exec(code, vars(module), scope)
    patch.setattr(owner, name, scope[name])
    patch.setitem(REPLACED, original, scope[name])
    for other in list(sys.modules.values()):  # and wherever else it was imported to
        if getattr(other, "__name__", "").startswith("minigan") and not classes:
            for alias in [key for key, value in vars(other).items() if value is original]:
                patch.setattr(other, alias, scope[name])


def prop(name: str, operation: str) -> Callable[[], None]:
    """The check: one property of test_ops for one operation, without shrinking the example."""
    generate = settings(max_examples=60, phases=[Phase.generate], deadline=None, database=None)
    test = getattr(test_ops, name).hypothesis.inner_test

    def check() -> None:
        (found,) = [s for s in ALL if s.name == operation]
        spec = replace(found, fn=REPLACED.get(found.fn, found.fn))

        @generate
        @given(data=st.data())
        def examples(data: st.DataObject) -> None:
            test(spec, data)

        examples()

    check.__name__ = f"{name}[{operation}]"
    return check


def machine() -> None:
    """The check: random graphs."""
    generate = settings(max_examples=200, stateful_step_count=30, phases=[Phase.generate])
    run_state_machine_as_test(test_graph_machine.RandomGraph, settings=generate)


def with_rng(test: Callable[..., None]) -> Callable[[], None]:
    return lambda: test(default_rng(0))


def without_collector(test: Callable[..., None], *args: Any) -> Callable[[], None]:
    def check() -> None:
        gc.collect()
        gc.disable()
        try:
            test(None, *args)
        finally:
            gc.enable()

    return check


ENGINE = [
    Bug("accumulates into an array that others hold", "minigan.autograd:traverse",
        "elif create_graph or parent not in owned:", "elif create_graph:",
        test_autograd_memory.test_accumulation_never_writes_into_an_alias),
    Bug("accumulates into what the caller passed", "minigan.autograd:traverse",
        "elif create_graph or parent not in owned:", "elif create_graph:",
        lambda: test_autograd_memory.test_multiple_use(2)),
    Bug("accumulates in place: random graphs", "minigan.autograd:traverse",
        "elif create_graph or parent not in owned:", "elif create_graph:", machine),
    Bug("the first leaf gradient is an alias", "minigan.autograd:_add_to_leaf",
        "as_array(g) if owned else as_array(g).copy(order=\"K\")", "as_array(g)",
        test_autograd.test_gradients_of_two_leaves_share_no_memory),
    Bug("visits what no path needs", "minigan.autograd:traverse",
        "if node.seq < floor or live.isdisjoint(parents):", "if node.seq < floor:",
        test_autograd.test_grad_stops_at_an_intermediate),
    Bug("pruning stays behind", "minigan.autograd:traverse",
        "node.needs = needs  # the next pass may want other inputs", "pass",
        test_autograd.test_backward_after_a_pruned_grad),
    Bug("order of collection instead of age", "minigan.autograd:reachable",
        "sorted(nodes, key=_by_sequence)", "sorted(nodes, key=_by_sequence, reverse=True)",
        machine),
    Bug("the graph is not freed", "minigan.autograd:traverse",
        "node.__dict__.clear()", "pass",
        without_collector(test_autograd_memory.test_backward_frees_the_graph_as_it_goes)),
    Bug("a node holds its own result: a cycle", "minigan.autograd:Function.apply",
        "return Tensor(out, node, version)",
        "node.result = Tensor(out, node, version); return node.result",
        without_collector(test_autograd_memory.test_dropping_a_loss_frees_its_graph)),
    Bug("double backward sees the saved output as a constant",
        "minigan.autograd:Function.saved_values",
        "Tensor(self.out, self, self.out_version) if as_tensors", "Tensor(self.out) if as_tensors",
        prop("test_second_order", "tanh")),
    Bug("double backward sees saved inputs as constants", "minigan.autograd:Function.saved_values",
        "values.append(t if as_tensors else t._data)",
        "values.append(Tensor(t._data) if as_tensors else t._data)",
        prop("test_second_order", "mul")),
    Bug("versions are not compared", "minigan.autograd:Function.saved_values",
        "if t.version[0] != version:", "if False:",
        lambda: test_versions.test_a_step_between_forward_and_backward_raises(test_versions.step)),
    Bug("versions are not compared: random graphs", "minigan.autograd:Function.saved_values",
        "if t.version[0] != version:", "if False:", machine),
    Bug("assigning data does not count as a change", "minigan.tensor:Tensor.bump",
        "self.version[0] += 1", "pass",
        lambda: test_versions.test_a_step_between_forward_and_backward_raises(
            test_versions.replace)),
    Bug("detach makes its own version", "minigan.tensor:Tensor.detach",
        "Tensor(self._data, None, self.version)", "Tensor(self._data)",
        lambda: test_versions.test_views_share_the_version(test_versions.VIEWS["detach"], True)),
    Bug("no_grad survives an exception", "minigan.autograd:no_grad",
        "    finally:\n        _RECORDING.reset(token)",
        "    except BaseException:\n        raise\n    else:\n        _RECORDING.reset(token)",
        test_autograd.test_no_grad_and_enable_grad),
    Bug("recomputing draws another mask", "minigan.recompute:Checkpoint.backward",
        "again(lambda: random.set_state(drawn))", "pass",
        test_recompute.test_random_draws_repeat_themselves),
    Bug("recomputing rewinds the streams", "minigan.recompute:Checkpoint.backward",
        "    again(lambda: random.set_state(rng))\n", "    pass\n",
        test_recompute.test_random_draws_repeat_themselves),
    Bug("recomputing does not say so", "minigan.recompute:Checkpoint.backward",
        "RECOMPUTING.set(True)", "RECOMPUTING.set(False)",
        test_recompute.test_side_effects_happen_once),
    Bug("checkpoint forgets parameters of the closure", "minigan.recompute:checkpoint",
        "tuple(outer)", "tuple(t.node for t in inputs)",
        with_rng(test_recompute.test_closure_parameters_get_gradients)),
    Bug("NaN watch looks at NaN only", "minigan.debug:NanWatch.backward",
        "not np.isfinite(array).all()", "np.isnan(array).any()",
        test_debug.test_nan_watch_in_the_backward_pass),
]  # fmt: skip

OPERATIONS = [
    Bug("missing sum over broadcast axes", "minigan.ops.arithmetic:Mul.backward",
        "return (da, db) if self.shapes is None else self.fold(da, db)", "return da, db",
        prop("test_gradient", "mul")),
    Bug("sum over broadcast axes drops the axis", "minigan.ops.shape:sum_to",
        "keepdims=True).reshape(shape)", "keepdims=False)", prop("test_gradient", "add")),
    Bug("broadcasting may change the rank", "minigan.ops.arithmetic:_check_ranks",
        "if a.ndim != b.ndim and a.ndim and b.ndim:", "if False:",
        lambda: test_tensor.test_broadcasting_that_changes_rank_raises(
            test_tensor.OPERATORS[0], (3,), (3, 1))),
    Bug("NumPy scalars change the dtype", "minigan.ops.arithmetic:weak",
        "value = value.item()", "return value",
        lambda: test_tensor.test_scalars_are_weak(
            test_tensor.OPERATORS[2], test_tensor.np.float64(1.5), test_tensor.np.float32)),
    Bug("quotient rule with the wrong sign", "minigan.ops.arithmetic:Div.backward",
        "-(da * out)", "da * out", prop("test_gradient", "div")),
    Bug("mean without 1/n", "minigan.ops.reduce:Mean.backward",
        "g / self.n", "g", prop("test_adjoint", "mean")),
    Bug("biased variance", "minigan.ops.reduce:var", "(n - correction)", "n",
        prop("test_forward_equals_reference", "var")),
    Bug("ties take the whole gradient each", "minigan.ops.reduce:Max.forward",
        "winners / winners.sum(axis=axes, keepdims=True)", "winners",
        test_kinks.test_ties_share_the_gradient_evenly),
    Bug("the length of a zero vector has a NaN slope", "minigan.ops.reduce:Norm.backward",
        "out.reshape(self.kept) + (1 - self.positive)", "out.reshape(self.kept)",
        test_kinks.test_norm_at_the_origin_is_flat_to_every_order),
    Bug("clamp stops the gradient at its limits", "minigan.ops.elementwise:Clamp.forward",
        "x >= self.low", "x > self.low", test_kinks.test_clamp_passes_the_gradient_at_its_limits),
    Bug("repeated positions count once", "minigan.ops.shape:AddAt.forward",
        "np.add.at(y, self.key, x)", "y[self.key] = x", test_kinks.test_index_repeats_add_up),
    Bug("transpose back with the same order", "minigan.ops.shape:Transpose.backward",
        "np.argsort(self.axes)", "self.axes", prop("test_adjoint", "transpose")),
    Bug("weight gradient transposed", "minigan.ops.linear:Linear.backward",
        "g.transpose((1, 0)), x", "x.transpose((1, 0)), g", prop("test_gradient", "linear")),
    Bug("where lets everything pass", "minigan.ops.elementwise:Where.backward",
        "g * (1 - kept)", "g", prop("test_gradient", "where")),
    Bug("relu has slope 1 at the kink", "minigan_kernels.cpu.activation:leaky_relu_backward",
        "leaky_relu_backward(g, y,", "leaky_relu_backward(g, y + (y == 0),",
        test_activation.test_slopes_at_zero),
    Bug("softmax overflows", "minigan_kernels.cpu.rows_plain:_shifted_powers",
        "x.max(axis=dim, keepdims=True)", "0 * x.max(axis=dim, keepdims=True)",
        test_activation.test_softmax_of_extremes),
    Bug("softmax gradient without the shared term",
        "minigan_kernels.cpu.rows_plain:softmax_backward",
        "weighted - y * weighted.sum(axis=dim, keepdims=True)", "weighted - y * weighted",
        prop("test_gradient", "softmax")),
    Bug("gain missing in the gradient of bias_act",
        "minigan_kernels.reference.activation:bias_act_backward",
        "derivatives[activation]() * gain", "derivatives[activation]()",
        prop("test_gradient", "bias_act")),
    Bug("attention without its scale", "minigan.ops.attention:ScaledDotProductAttention.reference",
        " * self.scale", "", prop("test_arrays_and_graph_give_the_same_gradient",
                                  "scaled_dot_product_attention")),
    Bug("dropout does not keep the mean", "minigan.ops.dropout:Dropout.forward",
        "1.0 / (1.0 - self.p)", "1.0", prop("test_forward_equals_reference", "dropout")),
    Bug("an embedding row used twice counts once", "minigan_kernels.cpu.index:scatter_rows",
        "np.add.reduceat(values, starts, axis=0)", "values[starts]",
        prop("test_gradient", "embedding")),
    Bug("loss averages over the batch only", "minigan.ops.loss:_reduce",
        "return loss.mean() if", "return loss.sum() / (loss.shape or (1,))[0] if",
        prop("test_forward_equals_reference", "mse_loss")),
]  # fmt: skip

NORMS = [
    Bug("eps is dropped", "minigan_kernels.cpu.norm_loops:_statistics",
        "total / count + eps", "total / count",
        prop("test_forward_equals_reference", "batch_norm")),
    Bug("ddof=1", "minigan_kernels.cpu.norm_loops:_statistics",
        "total / count + eps", "total / max(count - 1, 1) + eps",
        prop("test_forward_equals_reference", "instance_norm")),
    Bug("one pass variance", "minigan_kernels.cpu.norm_loops:_statistics",
        "1 / np.sqrt(total / count + eps)",
        "1 / np.sqrt(abs((total / count + mean**2).astype(row.dtype) - mean**2) + eps)",
        test_kernels_norm.test_loops_normalise_a_mean_of_1000_in_float32),
    Bug("the last rows of a plane are left out", "minigan_kernels.cpu.norm_threaded:_plan",
        "chunks = -(-length // r_chunk)", "chunks = max(length // r_chunk, 1)",
        lambda: test_kernels_norm.test_arrays_of_many_chunks("batch", "last")),
    Bug("no activation in the gradient", "minigan.ops.norm:Norm.backward_kernel",
        "self.axes, self.slope, self.base", "self.axes, 1.0, self.base",
        prop("test_gradient", "batch_norm-leaky_relu")),
    Bug("1 + gamma only forward", "minigan.ops.norm:Norm.backward_kernel",
        "self.axes, self.slope, self.base", "self.axes, self.slope, 0.0",
        prop("test_gradient", "spade-relu")),
    Bug("a replaced forward is passed over", "minigan.nn.containers:_activation_after",
        '"forward" in vars(module) or "forward" in vars(after)', "False",
        test_norm.test_sequential_joins_only_what_cannot_be_told_apart),
    Bug("the mean is detached in double backward", "minigan.ops.norm:Norm.reference",
        "x - x.mean(self.axes, keepdims=True)", "x - x.mean(self.axes, keepdims=True).detach()",
        prop("test_arrays_and_graph_give_the_same_gradient", "batch_norm")),
    Bug("the variance is a constant to order 2", "minigan.ops.norm:Norm.reference",
        "(variance + self.eps).sqrt()", "(variance.detach() + self.eps).sqrt()",
        prop("test_second_order", "instance_norm")),
    Bug("statistics of the latest forward", "minigan.ops.norm:Norm.forward",
        "y, self.mean, self.rstd =", "y, type(self).mean, type(self).rstd =",
        prop("test_graphs_do_not_share_state", "batch_norm")),
    Bug("the mean of h x^ is missing", "minigan_kernels.cpu.norm_loops:norm_backward",
        "-rstd * rstd * mean_hx", "0 * mean_hx", prop("test_gradient", "group_norm")),
    Bug("running variance is biased", "minigan.ops.norm:Norm._track", "(n / (n - 1))", "1.0",
        test_norm.test_running_variance_is_unbiased_where_the_output_is_biased),
    Bug("recomputing updates the statistics again", "minigan.ops.norm:Norm.forward",
        " and not is_recomputing()", "",
        test_norm.test_running_statistics_stay_in_eval_mode_and_in_recomputation),
    Bug("pixel norm over the wrong axis", "minigan_kernels.cpu.rows_plain:pixel_norm",
        "mean(axis=1, keepdims=True)", "mean(axis=-1, keepdims=True)",
        prop("test_forward_equals_reference", "pixel_norm")),
]  # fmt: skip

IMAGES = [
    Bug("half a pixel off", "minigan.ops.resample:interpolation_table",
        "(i + 0.5) * (n / out if factor is None else 1 / factor) - 0.5",
        "i * (n / out if factor is None else 1 / factor)",
        prop("test_forward_equals_reference", "interpolate-bilinear")),
    Bug("the adjoint of resizing drops shared taps", "minigan.ops.resample:AxisMap.backward",
        "self.table.transposed", "Table(self.table.transposed.index[:, :1], "
        "self.table.transposed.weight[:, :1], self.table.transposed.length)",
        prop("test_adjoint", "interpolate-bilinear")),
    Bug("pixel shuffle swaps rows and columns", "minigan.ops.shuffle:pixel_shuffle",
        "transpose(0, 1, 4, 2, 5, 3)", "transpose(0, 1, 4, 3, 5, 2)",
        prop("test_forward_equals_reference", "pixel_shuffle")),
    Bug("the filter is not flipped in the gradient", "minigan.ops.upfirdn:Upfirdn2d.backward",
        "not self.flip", "self.flip", prop("test_adjoint", "upfirdn2d")),
    Bug("average pool divides by the whole window", "minigan.ops.pool:window_table",
        "padded if count_include_pad else inside.sum(axis=1)", "np.full(len(start), k)",
        prop("test_forward_equals_reference", "avg_pool2d")),
]  # fmt: skip

CONVOLUTIONS = [
    Bug("convolution instead of correlation", "minigan_kernels.cpu.conv_plain:conv",
        "_split(weight, groups)",
        "_split(np.flip(weight, tuple(range(2, weight.ndim))), groups)",
        prop("test_forward_equals_reference", "conv2d")),
    Bug("all padding at the end", "minigan_kernels.cpu.conv_plain:conv",
        "k, -p, s, d) for n", "k, 0, s, d) for n", prop("test_forward_equals_reference", "conv2d")),
    Bug("groups in the wrong order", "minigan_kernels.cpu.conv_plain:conv",
        "_split(weight, groups)", "_split(weight, groups)[::-1]",
        prop("test_forward_equals_reference", "conv2d")),
    Bug("stride and dilation change places in the weight gradient",
        "minigan_kernels.cpu.conv_plain:conv_weight_grad",
        "Axis(out, k, -p, s, d)", "Axis(out, k, -p, d, s)", prop("test_adjoint", "conv2d")),
    Bug("output padding on the wrong side", "minigan_kernels.cpu.conv_plain:conv_transpose",
        "Axis(n, k, -p, s, d) for n, k, s, p, d in spread",
        "Axis(n, k, e - p, s, d) for (n, k, s, p, d), e in zip(spread, output_padding)",
        prop("test_forward_equals_reference", "conv_transpose2d")),
]  # fmt: skip

TRAINING = [
    Bug("Adam without bias correction", "minigan_kernels.cpu.optim:adam_step",
        "(1 - beta2**step) ** -0.5", "1.0",
        lambda: test_optim.test_kernels_equal_their_definition(
            "float32", "plain", default_rng(20240501))),
    Bug("steps do not raise the version", "minigan.optim.base:Optimizer._step",
        "self.params[i].bump()", "pass",
        test_optim.test_a_stale_graph_is_refused_after_a_step),
    Bug("the average keeps the first buffers", "minigan.optim.ema:EMA.update",
        "mine.data[...] = theirs.data", "pass", test_optim_games.test_ema_copies_buffers),
    Bug("the average forgets instead of keeping", "minigan.optim.ema:EMA._lerp",
        "averages, targets, 1 - beta", "averages, targets, beta",
        test_optim_games.test_ema_of_weights_by_hand),
    Bug("sigma is a constant", "minigan.nn.spectral:SpectralNorm.forward",
        "weight / sigma.reshape(())", "weight / sigma.detach().reshape(())",
        test_nn_weights.test_sigma_is_differentiated_and_its_vectors_are_not),
    Bug("power iteration writes over the vectors of an older graph",
        "minigan.nn.spectral:SpectralNorm.iterate",
        "self.u.data, self.v.data = u, v", "self.u.data[...], self.v.data[...] = u, v",
        test_nn_weights.test_two_forwards_before_the_backward),
]  # fmt: skip

BUGS = [*ENGINE, *OPERATIONS, *NORMS, *IMAGES, *CONVOLUTIONS, *TRAINING]
