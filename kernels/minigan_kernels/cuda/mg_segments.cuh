// mg_segments.cuh - sums over segments of a sorted list (sort.cu), in its order.
//
// A segment may be long: all places of a grid may read one pixel. So blocks of the list that lie
// within one segment were added up before by other threads, and count as one term.
#pragma once
#include "mg_vector.cuh"

namespace mg {

constexpr int BLOCK = 128;  // ids of a block; sort.py

// The sum of term(id) over order[begin, end), four terms in flight.
template <class T, int V, class Term>
__device__ __forceinline__ void add_terms(Vector<T, V>& sum, const int* order, int begin, int end,
                                          const Term& term) {
    int j = begin;
    for (; j + 4 <= end; j += 4) {
        const int a = order[j], b = order[j + 1], c = order[j + 2], d = order[j + 3];
        const Vector<T, V> p = term(a), q = term(b), r = term(c), s = term(d);
        sum.add(p);
        sum.add(q);
        sum.add(r);
        sum.add(s);
    }
    for (; j < end; j++) sum.add(term(order[j]));
}

// The same for a whole segment; block_sum(i) is the sum over block i, which was made by
// add_terms(order, i * BLOCK, (i + 1) * BLOCK) if the block lies within a segment.
template <class T, int V, class Term, class Block>
__device__ __forceinline__ void add_segment(Vector<T, V>& sum, const int* order, int2 span,
                                            const Term& term, const Block& block_sum) {
    int first = (span.x + BLOCK - 1) / BLOCK, last = span.y / BLOCK;
    if (first >= last) return add_terms(sum, order, span.x, span.y, term);
    add_terms(sum, order, span.x, first * BLOCK, term);
    for (; first < last; first++) sum.add(block_sum(first));
    add_terms(sum, order, last * BLOCK, span.y, term);
}

}  // namespace mg
