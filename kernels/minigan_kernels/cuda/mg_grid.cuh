// mg_grid.cuh - where a place of grid_sample lies between the pixels of an axis.
#pragma once
#include "mg.cuh"

namespace mg {

enum { ZEROS, BORDER, REFLECTION };

struct Spot {
    int first;        // pixel at or before the place; the other is the next one
    double fraction;  // weight of the second pixel; NaN if the place is
    double slope;     // derivative of the fraction by the coordinate
};

// The place of coordinate u on an axis of n pixels, in float64 as everywhere: pixels hang on it.
__device__ __forceinline__ Spot locate(double u, int n, bool nearest, int padding, bool align) {
    const double nothing = u - u;  // NaN where the coordinate is not finite
    double slope = align ? (n - 1) / 2.0 : n / 2.0;
    double s = (u + 1) * slope - (align ? 0.0 : 0.5);
    if (padding == REFLECTION) {  // fold the line at the borders
        const double low = align ? 0.0 : -0.5, span = align ? n - 1.0 : (double)n;
        if (span == 0) {
            s = nothing;
            slope = 0;
        } else {
            const double folds = ::floor((s - low) / span);
            s -= folds * span;
            if (folds - 2 * ::floor(folds / 2) != 0) {
                s = 2 * low + span - s;
                slope = -slope;
            }
        }
    }
    if (s != s) return {0, s, s};
    if (padding == ZEROS) {
        s = ::fmin(::fmax(s, -2.0), n + 1.0);  // as far outside as matters, and fit for an int
    } else {
        if (!(0 < s && s < n - 1)) slope = 0;
        s = ::fmin(::fmax(s, 0.0), n - 1.0);
    }
    if (nearest) return {(int)::rint(s), 0, 0};
    const double first = ::floor(s);
    return {(int)first, s - first, slope};
}

// Whether corner 0 or 1 of a spot is a pixel. Places that are not numbers have only corner 0.
__device__ __forceinline__ bool has(const Spot& spot, int corner, int n) {
    const int j = spot.first + corner;
    return j >= 0 && j < n && (corner == 0 || spot.fraction == spot.fraction);
}

}  // namespace mg
