// Batch norm of a training step and the activation behind it, compiled once per instruction set.
//
// In channels_last a tensor is `rows` times `channels` floats. A vector rarely holds whole pixels, so several rows are
// taken as one period: the least multiple of `channels` that fills at least BLOCK vectors and the last of them too. Lane
// j of a period belongs to channel j % channels; what is the same for all of a channel is laid out once for a period.
#include <cmath>

#include "epilogue.h"
#include "groups.h"
#include "scratch.h"
#include "variants.h"

namespace lkspace {
namespace {

typedef Vector<WIDE> Wide;

// Vectors of sums that stay in registers: enough of them to hide the latency of an addition.
constexpr int BLOCK = 4;
// Floats that are summed in float32 before they are added to what came before; they stay in the first-level cache.
constexpr int64_t CHUNK_FLOATS = 4096, CHUNK_PERIODS = 8;
// The least floats in a piece of work, and the most pieces: sums are cut by shape alone, so that threads do not change
// the bits.
constexpr int64_t PIECE_FLOATS = 32 * 1024, MOST_PIECES = 64;

struct Cut {
    int64_t channels, period, periods, tail;  // floats in a period, whole periods, floats behind them
    int64_t pieces, chunk;                    // periods in a chunk

    explicit Cut(const Norm& q) : channels(q.channels), period(WIDE) {
        while (period % channels) period += WIDE;
        period *= ceil_divide(int64_t{BLOCK} * WIDE, period);
        const int64_t floats = q.rows * channels;
        periods = floats / period;
        tail = floats % period;
        pieces = least(least(most(floats / PIECE_FLOATS, 1), MOST_PIECES), most(periods, 1));
        chunk = most(CHUNK_PERIODS, CHUNK_FLOATS / period);
    }
    int64_t begin(int64_t piece) const { return periods * piece / pieces; }
    int64_t size(int64_t piece) const { return begin(piece + 1) - begin(piece); }
    int64_t threads(const Norm& q) const { return q.rows * channels < 2 * PIECE_FLOATS ? 1 : q.threads; }
};

inline float* floats(int64_t address) { return reinterpret_cast<float*>(address); }

// work(first lane, Width<vectors>) for blocks of vectors that make up a period.
template <class Work>
inline void over_blocks(int64_t period, const Work& work) {
    int64_t lane = 0;
    for (; lane + BLOCK * WIDE <= period; lane += BLOCK * WIDE) work(lane, Width<BLOCK>());
    for (; lane < period; lane += WIDE) work(lane, Width<1>());
}

// work(first period, periods) for the chunks of a piece.
template <class Work>
inline void over_chunks(const Cut& cut, int64_t piece, const Work& work) {
    for (int64_t at = cut.begin(piece); at < cut.begin(piece + 1); at += cut.chunk)
        work(at, least(cut.chunk, cut.begin(piece + 1) - at));
}

// Mean of each lane and sum of squared distances from it, over one piece: chunk by chunk, each by its own mean, put
// together as by Chan, Golub and LeVeque (1983).
void moments(const Cut& cut, const float* x, int64_t piece, float* mean, float* squares) {
    for (int64_t lane = 0; lane < cut.period; ++lane) mean[lane] = squares[lane] = 0.0f;
    int64_t before = 0;
    over_chunks(cut, piece, [&](int64_t first, int64_t count) {
        const float share = 1.0f / static_cast<float>(count);
        const float weight = static_cast<float>(count) / static_cast<float>(before + count);
        const float pull = static_cast<float>(before) * weight;
        over_blocks(cut.period, [&](int64_t lane, auto width) {
            constexpr int V = decltype(width)::L;
            const float* const from = x + first * cut.period + lane;
            Wide sum[V] = {}, own[V], square[V] = {};
            for (int64_t k = 0; k < count; ++k)
                LKSPACE_UNROLL for (int v = 0; v < V; ++v) sum[v] += load<WIDE>(from + k * cut.period + v * WIDE);
            LKSPACE_UNROLL for (int v = 0; v < V; ++v) own[v] = sum[v] * share;
            for (int64_t k = 0; k < count; ++k)
                LKSPACE_UNROLL for (int v = 0; v < V; ++v) {
                    const Wide away = load<WIDE>(from + k * cut.period + v * WIDE) - own[v];
                    square[v] = fused<WIDE>(away, away, square[v]);
                }
            LKSPACE_UNROLL for (int v = 0; v < V; ++v) {
                float *const m = mean + lane + v * WIDE, *const s = squares + lane + v * WIDE;
                const Wide step = own[v] - load<WIDE>(m);
                store<WIDE>(m, load<WIDE>(m) + step * weight);
                store<WIDE>(s, load<WIDE>(s) + square[v] + step * (step * pull));
            }
        });
        before += count;
    });
}

// work(piece, lane, channel) for every lane of all pieces.
template <class Work>
inline void over_lanes(const Cut& cut, int64_t pieces, const Work& work) {
    for (int64_t piece = 0; piece < pieces; ++piece)
        for (int64_t first = 0; first < cut.period; first += cut.channels)
            for (int64_t k = 0; k < cut.channels; ++k) work(piece, first + k, k);
}

// What a channel is scaled and shifted by, for every lane of a period.
void spread(const Cut& cut, const double* channel, float* lanes) {
    for (int64_t lane = 0; lane < cut.period; ++lane) lanes[lane] = static_cast<float>(channel[lane % cut.channels]);
}

template <int64_t ACTIVATION>
void normalise(const float* x, const float* scale, const float* shift, int64_t period, int64_t periods, float* y) {
    for (int64_t k = 0; k < periods; ++k, x += period, y += period)
        for (int64_t lane = 0; lane < period; lane += WIDE)
            store<WIDE>(y + lane, activated<WIDE>(fused<WIDE>(load<WIDE>(x + lane), load<WIDE>(scale + lane),
                                                              load<WIDE>(shift + lane)), ACTIVATION));
}

// Gradient of what goes into the activation, v, from that of what comes out.
template <int64_t ACTIVATION>
inline Wide before_activation(Wide grad, Wide v) {
    const Wide zero = {};
    if (ACTIVATION == RELU) return v <= zero ? zero : grad;
    if (ACTIVATION == GELU) return grad * gelu_slope<WIDE>(v);
    return grad;
}

// Sums of g, the gradient before the activation, and of g (x - mean) over `periods`, added to what is there. A GELU's g
// goes to `kept`, since it takes longer to compute than to read.
template <int64_t ACTIVATION>
void sums(const float* grad, const float* x, const float* scale, const float* shift, const float* mean, int64_t period,
          int64_t periods, float* sum, float* product, float* kept) {
    over_blocks(period, [&](int64_t lane, auto width) {
        constexpr int V = decltype(width)::L;
        Wide plain[V] = {}, with_x[V] = {};
        for (int64_t k = 0; k < periods; ++k)
            LKSPACE_UNROLL for (int v = 0; v < V; ++v) {
                const int64_t within = lane + v * WIDE, at = k * period + within;
                const Wide value = load<WIDE>(x + at);
                Wide g = load<WIDE>(grad + at);
                if (ACTIVATION != NONE)
                    g = before_activation<ACTIVATION>(
                        g, fused<WIDE>(value, load<WIDE>(scale + within), load<WIDE>(shift + within)));
                if (ACTIVATION == GELU) store<WIDE>(kept + at, g);
                plain[v] += g;
                with_x[v] = fused<WIDE>(g, value - load<WIDE>(mean + within), with_x[v]);
            }
        LKSPACE_UNROLL for (int v = 0; v < V; ++v) {
            const int64_t within = lane + v * WIDE;
            store<WIDE>(sum + within, load<WIDE>(sum + within) + plain[v]);
            store<WIDE>(product + within, load<WIDE>(product + within) + with_x[v]);
        }
    });
}

// into = scale g + slope (x - mean) + offset, lane by lane.
template <int64_t ACTIVATION>
void spread_gradient(const float* grad, const float* x, const float* scale, const float* shift, const float* mean,
                     const float* slope, const float* offset, int64_t period, int64_t periods, float* into) {
    for (int64_t k = 0; k < periods; ++k, x += period, grad += period, into += period)
        for (int64_t lane = 0; lane < period; lane += WIDE) {
            const Wide value = load<WIDE>(x + lane), by = load<WIDE>(scale + lane);
            Wide g = load<WIDE>((ACTIVATION == GELU ? into : grad) + lane);
            if (ACTIVATION == RELU) g = before_activation<RELU>(g, fused<WIDE>(value, by, load<WIDE>(shift + lane)));
            const Wide away = value - load<WIDE>(mean + lane);
            const Wide rest = fused<WIDE>(away, load<WIDE>(slope + lane), load<WIDE>(offset + lane));
            store<WIDE>(into + lane, fused<WIDE>(by, g, rest));
        }
}

// A last period that is not whole, with zeros behind it in `room`; `from` is null for an output.
struct Padded {
    float *const data, *const out;
    const int64_t floats;

    Padded(const float* from, float* out, int64_t floats, int64_t period, float* room)
        : data(room), out(out), floats(floats) {
        for (int64_t i = 0; i < period; ++i) data[i] = from && i < floats ? from[i] : 0.0f;
    }
    void write() const {
        for (int64_t i = 0; i < floats; ++i) out[i] = data[i];
    }
};

inline float moved(float from, double towards, double part) {
    return static_cast<float>((1.0 - part) * from + part * towards);
}

template <int64_t ACTIVATION>
void forward(const Norm& q) {
    const Cut cut(q);
    const int64_t c = cut.channels, period = cut.period, whole = cut.periods * period;
    const float* const x = floats(q.x);
    const float* const weight = floats(q.weight);
    const float* const bias = floats(q.bias);
    float* const y = floats(q.y);
    const Memory numbers(8 * c);
    double* const mean = reinterpret_cast<double*>(numbers.data);
    double *const square = mean + c, *const scale = square + c, *const shift = scale + c;
    const Memory parts(2 * cut.pieces * period + 4 * period);
    float *const lanes = parts.data, *const scales = lanes + 2 * cut.pieces * period, *const shifts = scales + period;

    share(cut.pieces, cut.threads(q), [&](int64_t piece) {
        moments(cut, x, piece, lanes + 2 * piece * period, lanes + (2 * piece + 1) * period);
    });
    for (int64_t k = 0; k < c; ++k) mean[k] = square[k] = 0.0;
    over_lanes(cut, cut.pieces, [&](int64_t piece, int64_t lane, int64_t k) {
        mean[k] += static_cast<double>(cut.size(piece)) * lanes[2 * piece * period + lane];
    });
    for (int64_t i = 0; i < cut.tail; ++i) mean[i % c] += x[whole + i];
    for (int64_t k = 0; k < c; ++k) mean[k] /= static_cast<double>(q.rows);
    over_lanes(cut, cut.pieces, [&](int64_t piece, int64_t lane, int64_t k) {
        const float* const own = lanes + 2 * piece * period + lane;
        const double away = own[0] - mean[k];
        square[k] += own[period] + static_cast<double>(cut.size(piece)) * away * away;
    });
    for (int64_t i = 0; i < cut.tail; ++i) square[i % c] += (x[whole + i] - mean[i % c]) * (x[whole + i] - mean[i % c]);

    float *const kept_mean = floats(q.mean), *const inverse = floats(q.inverse);
    float *const running_mean = floats(q.running_mean);
    float *const running_variance = floats(q.running_variance);
    for (int64_t k = 0; k < c; ++k) {
        const double variance = square[k] / static_cast<double>(q.rows);
        kept_mean[k] = static_cast<float>(mean[k]);
        inverse[k] = static_cast<float>(1.0 / std::sqrt(variance + q.eps));
        scale[k] = static_cast<double>(weight[k] * inverse[k]);
        shift[k] = bias[k] - kept_mean[k] * scale[k];
        running_mean[k] = moved(running_mean[k], mean[k], q.momentum);
        running_variance[k] = moved(running_variance[k], square[k] / static_cast<double>(q.rows - 1), q.momentum);
    }
    spread(cut, scale, scales);
    spread(cut, shift, shifts);
    share(cut.pieces, cut.threads(q), [&](int64_t piece) {
        const int64_t at = cut.begin(piece) * period;
        normalise<ACTIVATION>(x + at, scales, shifts, period, cut.size(piece), y + at);
    });
    if (cut.tail) {
        const Padded in(x + whole, nullptr, cut.tail, period, shifts + period);
        const Padded out(nullptr, y + whole, cut.tail, period, lanes);
        normalise<ACTIVATION>(in.data, scales, shifts, period, 1, out.data);
        out.write();
    }
}

template <int64_t ACTIVATION>
void backward(const Norm& q) {
    const Cut cut(q);
    const int64_t c = cut.channels, period = cut.period, whole = cut.periods * period;
    const float *const x = floats(q.x), *const grad = floats(q.y);
    const float* const weight = floats(q.weight);
    const float* const bias = floats(q.bias);
    const float* const mean = floats(q.mean);
    const float* const inverse = floats(q.inverse);
    float* const into = floats(q.into_x);
    const Memory numbers(12 * c);
    double* const sum = reinterpret_cast<double*>(numbers.data);
    double *const product = sum + c, *const scale = product + c, *const shift = scale + c;
    double *const slope = shift + c, *const offset = slope + c;
    const int64_t pieces = cut.pieces + 1;  // the last one for the tail
    const Memory parts(2 * pieces * period + 8 * period);
    float *const lanes = parts.data, *const scales = lanes + 2 * pieces * period, *const shifts = scales + period;
    float *const means = shifts + period, *const slopes = means + period, *const offsets = slopes + period;
    float* const room = offsets + period;

    for (int64_t k = 0; k < c; ++k) {
        scale[k] = static_cast<double>(weight[k] * inverse[k]);  // as forward: a ReLU must open for the same values
        shift[k] = bias[k] - mean[k] * scale[k];
    }
    spread(cut, scale, scales);
    spread(cut, shift, shifts);
    for (int64_t lane = 0; lane < period; ++lane) means[lane] = mean[lane % c];
    for (int64_t i = 0; i < 2 * pieces * period; ++i) lanes[i] = 0.0f;
    share(cut.pieces, cut.threads(q), [&](int64_t piece) {
        float *const own = lanes + 2 * piece * period;
        over_chunks(cut, piece, [&](int64_t first, int64_t count) {
            const int64_t at = first * period;
            sums<ACTIVATION>(grad + at, x + at, scales, shifts, means, period, count, own, own + period, into + at);
        });
    });
    const Padded values(cut.tail ? x + whole : nullptr, nullptr, cut.tail, period, room);
    const Padded behind(cut.tail ? grad + whole : nullptr, nullptr, cut.tail, period, room + period);
    const Padded result(nullptr, into + whole, cut.tail, period, room + 2 * period);
    if (cut.tail) {
        float *const own = lanes + 2 * cut.pieces * period;
        sums<ACTIVATION>(behind.data, values.data, scales, shifts, means, period, 1, own, own + period, result.data);
    }
    for (int64_t k = 0; k < c; ++k) sum[k] = product[k] = 0.0;
    over_lanes(cut, pieces, [&](int64_t piece, int64_t lane, int64_t k) {
        sum[k] += lanes[2 * piece * period + lane];
        product[k] += lanes[(2 * piece + 1) * period + lane];
    });
    float* const into_weight = floats(q.into_weight);
    float* const into_bias = floats(q.into_bias);
    for (int64_t k = 0; k < c; ++k) {
        const double share = scale[k] / static_cast<double>(q.rows);
        into_weight[k] = static_cast<float>(product[k] * inverse[k]);
        into_bias[k] = static_cast<float>(sum[k]);
        slope[k] = -share * inverse[k] * inverse[k] * product[k];
        offset[k] = -share * sum[k];
    }
    spread(cut, slope, slopes);
    spread(cut, offset, offsets);
    share(cut.pieces, cut.threads(q), [&](int64_t piece) {
        const int64_t at = cut.begin(piece) * period;
        spread_gradient<ACTIVATION>(grad + at, x + at, scales, shifts, means, slopes, offsets, period, cut.size(piece),
                                    into + at);
    });
    if (cut.tail) {
        spread_gradient<ACTIVATION>(behind.data, values.data, scales, shifts, means, slopes, offsets, period, 1,
                                    result.data);
        result.write();
    }
}

}  // namespace

namespace LKSPACE_VARIANT {

void batch_norm(const Norm& q) {
    switch (q.activation) {
        case RELU: return forward<RELU>(q);
        case GELU: return forward<GELU>(q);
        default: return forward<NONE>(q);
    }
}

void batch_norm_gradients(const Norm& q) {
    switch (q.activation) {
        case RELU: return backward<RELU>(q);
        case GELU: return backward<GELU>(q);
        default: return backward<NONE>(q);
    }
}

}  // namespace LKSPACE_VARIANT
}  // namespace lkspace
