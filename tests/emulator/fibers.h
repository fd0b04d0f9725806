// fibers.h - one thread block at a time, every CUDA thread a fiber (x86-64 Linux, g++ >= 11).
//
// Threads run until they meet a barrier; whoever comes last releases the others. A collective of a
// warp (shuffle, ballot, matrix product) is a barrier whose last arriver computes the results of all
// lanes: their operands lie on stacks that are alive.
//
// Strict on purpose. Shared memory holds NaN when a block starts and ends at a page that faults, the
// order of warps and lanes between barriers can be turned around or shuffled, and what a GPU leaves
// undefined is an error that names block and thread.
#pragma once
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>
#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

namespace emu {

enum State : uint8_t { READY, AT_BLOCK, AT_WARP, AT_GROUP, DONE };
enum Order { ASCENDING, DESCENDING, SHUFFLED };
using Collective = void (*)(void** payloads);  // computes on the operands of all who met

struct Copy { char* to; const char* from; unsigned bytes, from_bytes; };  // a cp.async on its way

struct Fiber {
    void* stack_pointer;
    uint3 index;
    unsigned number;
    State state;
    std::vector<Copy> copies;
    std::vector<unsigned> copy_groups;  // end of each committed group
    bool unfenced;  // landed copies that the asynchronous proxy (wgmma) may not see yet
};

struct Warp { uint32_t alive, arrived; Collective what; void* payloads[32]; };

struct Product { unsigned long long a, b; int columns; float* result[128]; };  // a wgmma on its way

struct Group {  // a warpgroup: 128 threads
    unsigned arrived;
    Collective what;
    void* payloads[128];
    std::vector<Product> products;
    std::vector<unsigned> product_groups;
};

constexpr unsigned MOST_THREADS = 1024, STACK = 128 * 1024, MOST_SHARED = 256 * 1024, PAGE = 4096;
constexpr unsigned SHARED_OF_A_BLOCK = 227 * 1024;  // what a launch may ask for on sm_90

struct Machine {
    uint3 block;
    dim3 block_size, grid_size;
    Fiber* current;
    Fiber* fibers;
    Warp warps[MOST_THREADS / 32];
    Group groups[MOST_THREADS / 128];
    bool unfenced;
    unsigned threads, alive, at_block;
    char *stacks, *shared, *shared_area;
    unsigned shared_bytes;
    void* main_stack;
    void (*entry)(void*);
    void* entry_argument;
    sigjmp_buf failed;
    char error[512];
    uint64_t random;
    int order;
};
inline Machine M;

extern "C" void minigan_switch(void** save_stack, void* load_stack);
// Saves what a call must preserve, and jumps instead of returning: the processor's prediction of
// returns would be wrong every time.
asm(R"(
.text
.p2align 4
.globl minigan_switch
.hidden minigan_switch
.type minigan_switch,@function
minigan_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
.size minigan_switch, .-minigan_switch
)");

[[noreturn]] inline void fail(const char* format, ...) {
    int used = 0;
    if (M.current)
        used = snprintf(M.error, sizeof M.error, "block (%u,%u,%u) thread (%u,%u,%u): ", M.block.x,
                        M.block.y, M.block.z, M.current->index.x, M.current->index.y,
                        M.current->index.z);
    va_list values;
    va_start(values, format);
    vsnprintf(M.error + used, sizeof M.error - used, format, values);
    va_end(values);
    siglongjmp(M.failed, 1);
}

inline void leave(State state) {
    M.current->state = state;
    minigan_switch(&M.current->stack_pointer, M.main_stack);
}

inline void release(Fiber* first, unsigned count, State waiting) {
    for (unsigned i = 0; i < count; i++)
        if (first[i].state == waiting) first[i].state = READY;
}

inline void sync_block() {
    if (M.alive != M.threads)
        fail("__syncthreads() after %u of %u threads returned", M.threads - M.alive, M.threads);
    M.unfenced |= M.current->unfenced;
    if (++M.at_block < M.threads) return leave(AT_BLOCK);
    release(M.fibers, M.threads, AT_BLOCK);
    M.at_block = 0;
}

// All lanes of a warp meet.
inline void meet_warp(uint32_t mask, void* payload, Collective what) {
    Fiber* me = M.current;
    Warp& warp = M.warps[me->number >> 5];
    if (mask != 0xffffffffu) fail("emulator: only full-warp masks are supported (got %08x)", mask);
    if (warp.alive != mask)
        fail("warp collective: lanes missing or returned (alive %08x)", warp.alive);
    if (warp.arrived && warp.what != what) fail("divergent warp: lanes wait in different collectives");
    warp.what = what;
    warp.payloads[me->number & 31] = payload;
    warp.arrived |= 1u << (me->number & 31);
    if (warp.arrived != mask) return leave(AT_WARP);
    if (what) what(warp.payloads);
    warp.arrived = 0;
    release(&M.fibers[me->number & ~31u], 32, AT_WARP);
}

// All threads of a warpgroup meet.
inline void meet_group(void* payload, Collective what) {
    Fiber* me = M.current;
    Group& group = M.groups[me->number >> 7];
    if (M.threads < (me->number / 128 + 1) * 128) fail("wgmma in an incomplete warpgroup");
    if (group.arrived && group.what != what) fail("divergent warpgroup");
    group.what = what;
    group.payloads[me->number & 127] = payload;
    if (++group.arrived < 128) return leave(AT_GROUP);
    if (what) what(group.payloads);
    group.arrived = 0;
    release(&M.fibers[me->number & ~127u], 128, AT_GROUP);
}

inline void fiber_main() {
    M.entry(M.entry_argument);
    Fiber* me = M.current;
    if (me->copy_groups.size() || me->copies.size()) fail("returned with cp.async not waited for");
    M.alive--;
    M.warps[me->number >> 5].alive &= ~(1u << (me->number & 31));
    if (M.at_block) fail("returned while %u threads wait in __syncthreads()", M.at_block);
    leave(DONE);
    __builtin_trap();
}

inline void on_fault(int signal, siginfo_t* info, void*) {
    const char* what = signal == SIGFPE  ? "integer division fault near %p"
                       : signal == SIGILL ? "misaligned memory access near instruction %p"
                                          : "illegal or misaligned memory access near %p";
    fail(what, info->si_addr);
}

inline uint64_t next_random() {
    M.random ^= M.random << 13;
    M.random ^= M.random >> 7;
    M.random ^= M.random << 17;
    return M.random;
}

inline void map_memory() {
    if (M.fibers) return;
    const int readable = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    M.fibers = new Fiber[MOST_THREADS]();
    M.stacks = (char*)mmap(nullptr, size_t(MOST_THREADS) * STACK, readable, kind, -1, 0);
    for (unsigned i = 0; i < MOST_THREADS; i++) mprotect(M.stacks + size_t(i) * STACK, PAGE, PROT_NONE);
    M.shared_area = (char*)mmap(nullptr, MOST_SHARED + PAGE, readable, kind, -1, 0);
    mprotect(M.shared_area + MOST_SHARED, PAGE, PROT_NONE);
}

inline void start_block() {
    memset(M.shared, 0xff, M.shared_bytes);  // NaN and -1
    M.alive = M.threads;
    M.at_block = 0;
    M.unfenced = false;
    for (Group& group : M.groups) {
        group.arrived = 0;
        group.products.clear();
        group.product_groups.clear();
    }
    for (unsigned i = 0; i < M.threads; i++) {
        Fiber& fiber = M.fibers[i];
        fiber.number = i;
        fiber.state = READY;
        fiber.unfenced = false;
        fiber.copies.clear();
        fiber.copy_groups.clear();
        const dim3 size = M.block_size;
        fiber.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        // Tops are staggered: else 1024 stacks would share a few sets of the cache.
        void** top = (void**)(M.stacks + size_t(i + 1) * STACK - i * 5 % 64 * 64) - 1;
        *top = nullptr;
        *--top = (void*)fiber_main;
        fiber.stack_pointer = top - 6;
    }
    for (unsigned w = 0; w * 32 < M.threads; w++) {
        unsigned lanes = M.threads - w * 32;
        M.warps[w].alive = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
        M.warps[w].arrived = 0;
    }
}

inline unsigned in_order(unsigned i, unsigned count, unsigned turn) {
    return M.order == DESCENDING ? count - 1 - i : (i + turn) % count;
}

// One warp until none of its lanes can go on; whether any could.
inline bool run_warp(unsigned warp) {
    Fiber* lanes = M.fibers + warp * 32;
    unsigned count = M.threads - warp * 32 < 32 ? M.threads - warp * 32 : 32;
    bool progress = false;
    for (bool again = true; again;) {
        again = false;
        unsigned turn = M.order == SHUFFLED ? next_random() % count : 0;
        for (unsigned i = 0; i < count; i++) {
            Fiber& lane = lanes[in_order(i, count, turn)];
            if (lane.state != READY) continue;
            M.current = &lane;
            minigan_switch(&M.main_stack, lane.stack_pointer);
            M.current = nullptr;
            progress = again = true;
        }
    }
    return progress;
}

inline void run_block() {
    start_block();
    const unsigned warps = (M.threads + 31) / 32;
    while (M.alive) {
        bool progress = false;
        unsigned turn = M.order == SHUFFLED ? next_random() % warps : 0;
        for (unsigned i = 0; i < warps; i++) progress |= run_warp(in_order(i, warps, turn));
        if (!progress && M.alive)
            fail("deadlock: %u of %u threads wait in __syncthreads(), the others elsewhere",
                 M.at_block, M.threads);
    }
}

struct Launch { unsigned grid[3], block[3], shared_bytes, order, seed; };

template <class... A, size_t... I>
int run_grid(void (*kernel)(A...), const Launch& how, void** arguments, char* error,
             std::index_sequence<I...>) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    map_memory();
    struct Call { void (*kernel)(A...); std::tuple<A...> values; };
    Call call{kernel, std::tuple<A...>(*static_cast<A*>(arguments[I])...)};
    M.entry = [](void* p) { std::apply(static_cast<Call*>(p)->kernel, static_cast<Call*>(p)->values); };
    M.entry_argument = &call;
    M.grid_size = {how.grid[0], how.grid[1], how.grid[2]};
    M.block_size = {how.block[0], how.block[1], how.block[2]};
    M.threads = how.block[0] * how.block[1] * how.block[2];
    M.shared_bytes = (how.shared_bytes + 15) & ~15u;
    M.order = int(how.order);
    M.random = 0x9E3779B97F4A7C15ull + how.seed;
    M.current = nullptr;
    if (!M.threads || M.threads > MOST_THREADS || M.shared_bytes > SHARED_OF_A_BLOCK ||
        how.grid[1] > 65535 || how.grid[2] > 65535) {
        snprintf(error, 512, "invalid launch: grid %u x %u x %u, %u threads, %u bytes shared",
                 how.grid[0], how.grid[1], how.grid[2], M.threads, M.shared_bytes);
        return 1;
    }
    M.shared = M.shared_area + MOST_SHARED - M.shared_bytes;  // ends at a page that faults
    // A fault is handled on a stack of its own: that of the fiber may have overflown.
    static thread_local char fault_stack[64 * 1024];
    stack_t stack{}, old_stack;
    stack.ss_sp = fault_stack;
    stack.ss_size = sizeof fault_stack;
    sigaltstack(&stack, &old_stack);
    struct sigaction action{}, old[4];
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    const int signals[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (int i = 0; i < 4; i++) sigaction(signals[i], &action, &old[i]);
    int status = 0;
    if (sigsetjmp(M.failed, 1) == 0) {
        for (unsigned z = 0; z < how.grid[2]; z++)
            for (unsigned y = 0; y < how.grid[1]; y++)
                for (unsigned x = 0; x < how.grid[0]; x++) {
                    M.block = {x, y, z};
                    run_block();
                }
    } else {
        memcpy(error, M.error, 512);
        status = 2;
    }
    for (int i = 0; i < 4; i++) sigaction(signals[i], &old[i], nullptr);
    sigaltstack(&old_stack, nullptr);
    return status;
}

template <class... A>
int launch(void (*kernel)(A...), const unsigned* how, void** arguments, char* error) {
    return run_grid(kernel, *(const Launch*)how, arguments, error, std::index_sequence_for<A...>());
}

}  // namespace emu
