//! Functions that an emitted file brings with it, where it calls them. What they mean is stated in the
//! primitive table; Burn's operations differ in a value or a gradient, or do not exist.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Helper {
    GroupCount,
    AlongChannels,
    RunningValue,
    Update,
    Unbiased,
    BatchMean,
    InstanceMean,
    LayerMean,
    GroupMean,
    ChannelMean,
    AllMean,
    Square,
    Tanh,
    Sign,
    SignedLog,
    SignedSqrt,
    Sqrt,
    Max,
    MaxScalar,
}

impl Helper {
    /// Each, in the order of the file.
    pub(super) const ALL: &'static [Helper] = &[
        Helper::GroupCount,
        Helper::AlongChannels,
        Helper::RunningValue,
        Helper::Update,
        Helper::Unbiased,
        Helper::BatchMean,
        Helper::InstanceMean,
        Helper::LayerMean,
        Helper::GroupMean,
        Helper::ChannelMean,
        Helper::AllMean,
        Helper::Square,
        Helper::Tanh,
        Helper::Sign,
        Helper::SignedLog,
        Helper::SignedSqrt,
        Helper::Sqrt,
        Helper::Max,
        Helper::MaxScalar,
    ];

    /// The function of that name.
    pub(super) fn by_name(name: &str) -> Option<Helper> {
        Helper::ALL.iter().copied().find(|helper| helper.name() == name)
    }

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        let (_, from) =
            self.text().split_once("\nfn ").unwrap_or_else(|| unreachable!("each is a documented function"));
        from.split_once('(').map_or(from, |(name, _)| name)
    }

    /// The function that it calls.
    pub(super) fn calls(self) -> Option<Helper> {
        match self {
            Helper::RunningValue => Some(Helper::AlongChannels),
            Helper::SignedSqrt => Some(Helper::Sqrt),
            _ => None,
        }
    }

    /// The function as the file has it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Helper::GroupCount => {
                "\
/// The largest number of groups, at most `most`, that divides the channels.
fn group_count(channels: usize, most: usize) -> usize {
    let mut counts = (1..=channels.min(most)).rev();
    let count = counts.find(|count| channels.is_multiple_of(*count));
    count.unwrap_or(1)
}
"
            }
            Helper::AlongChannels => {
                "\
/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
}
"
            }
            Helper::RunningValue => {
                "\
/// A running average as a tensor that broadcasts against `x`.
fn running_value(running: &RunningState<Tensor<1>>, x: &Tensor<3>) -> Tensor<3> {
    along_channels(running.value_sync().to_device(&x.device()), x)
}
"
            }
            Helper::Update => {
                "\
/// Moves a running average towards that of a batch; `momentum` is the weight of the new value.
fn update(running: &RunningState<Tensor<1>>, average: Tensor<3>, momentum: f64) {
    let old = running.value_sync().to_device(&average.device());
    let new = average.detach().reshape(old.dims()).cast(old.dtype());
    running.update((old * (1.0 - momentum) + new * momentum).detach());
}
"
            }
            Helper::Unbiased => {
                "\
/// The unbiased estimate from the variance of `count` elements; from one there is none.
fn unbiased(variance: Tensor<3>, count: usize) -> Tensor<3> {
    match count {
        1 => variance,
        _ => variance * (count as f64 / (count - 1) as f64),
    }
}
"
            }
            Helper::BatchMean => {
                "\
/// The mean over samples and positions.
fn batch_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2).mean_dim(0)
}
"
            }
            Helper::InstanceMean => {
                "\
/// The mean over positions.
fn instance_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2)
}
"
            }
            Helper::LayerMean => {
                "\
/// The mean over channels and positions.
fn layer_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2).mean_dim(1)
}
"
            }
            Helper::GroupMean => {
                "\
/// The mean over positions and the channels of a group, in the place of each of these channels.
fn group_mean(x: Tensor<3>, groups: usize) -> Tensor<3> {
    let [samples, channels, _] = x.dims();
    let (rows, size) = (samples * groups, channels / groups);
    let means = x.mean_dim(2).reshape([rows, size]).mean_dim(1);
    means.expand([rows, size]).reshape([samples, channels, 1])
}
"
            }
            Helper::ChannelMean => {
                "\
/// The mean over channels.
fn channel_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(1)
}
"
            }
            Helper::AllMean => {
                "\
/// The mean over samples, channels and positions.
fn all_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2).mean_dim(1).mean_dim(0)
}
"
            }
            Helper::Square => {
                "\
/// `x * x`.
fn square(x: Tensor<3>) -> Tensor<3> {
    x.clone() * x
}
"
            }
            Helper::Tanh => {
                "\
/// The hyperbolic tangent. On a GPU it may be computed from `exp(x)`, which overflows, so operands are
/// clamped to where the result is 1.
fn tanh(x: Tensor<3>) -> Tensor<3> {
    x.clamp_max(20.0).clamp_min(-20.0).tanh()
}
"
            }
            Helper::Sign => {
                "\
/// `-1`, `0` or `1`, and NaN for NaN.
fn sign(x: Tensor<3>) -> Tensor<3> {
    let nan = x.clone().is_nan();
    x.sign().mask_fill(nan, f64::NAN)
}
"
            }
            Helper::SignedLog => {
                "\
/// `sign(x) * ln|x|`: the logarithm, extended to negative numbers as an odd function.
fn signed_log(x: Tensor<3>) -> Tensor<3> {
    x.clone().detach().sign() * x.abs().log()
}
"
            }
            Helper::SignedSqrt => {
                "\
/// `sign(x) * sqrt(|x|)`: the square root, extended to negative numbers as an odd function.
fn signed_sqrt(x: Tensor<3>) -> Tensor<3> {
    x.clone().detach().sign() * sqrt(x.abs())
}
"
            }
            Helper::Sqrt => {
                "\
/// The square root of numbers that are not negative, with derivative 0 at 0.
fn sqrt(x: Tensor<3>) -> Tensor<3> {
    let zero = x.clone().equal_elem(0.0);
    let positive = x.mask_fill(zero.clone(), 1.0);
    positive.sqrt().mask_fill(zero, 0.0)
}
"
            }
            Helper::Max => {
                "\
/// The larger of two values, NaN if either is; on a tie each gets half of the gradient.
fn max(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    let b_is_larger = a.clone().lower(b.clone());
    let a_is_larger = b.clone().lower(a.clone());
    // On a tie the first half comes from `a` and the second from `b`.
    let first = a.clone().mask_where(b_is_larger, b.clone());
    let second = b.mask_where(a_is_larger, a);
    first * 0.5 + second * 0.5
}
"
            }
            Helper::MaxScalar => {
                "\
/// The larger of `x` and a number, NaN for NaN; on a tie `x` gets half of the gradient.
fn max_scalar(x: Tensor<3>, number: f64) -> Tensor<3> {
    let is_lower = x.clone().lower_elem(number);
    let is_not_larger = x.clone().lower_equal_elem(number);
    let first = x.clone().mask_fill(is_lower, number);
    let second = x.mask_fill(is_not_larger, number);
    first * 0.5 + second * 0.5
}
"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_found_by_its_name() {
        for &helper in Helper::ALL {
            assert_eq!(Helper::by_name(helper.name()), Some(helper));
        }
    }
}
