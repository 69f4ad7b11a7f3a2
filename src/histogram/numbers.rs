//! Numbers as people read them, and round ticks for an axis.

/// Thousands separators: `1,234,567`.
#[must_use]
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits with an SI suffix, rounded: `999`, `1.23k`, `12.3M`, `18.4E`. At most
/// five characters for everything that fits 64 bits.
#[must_use]
pub fn short(number: u128) -> String {
    if number < 1000 {
        return number.to_string();
    }
    let mut power = (number.ilog10() / 3).min(LARGEST_POWER);
    // Two decimals for 1.23k, one for 12.3k, none for 123k.
    let decimals = 2_u32.saturating_sub(number.ilog10() - power * 3);
    let unit = 1000_u128.pow(power);
    let mut scaled = (number.saturating_mul(10_u128.pow(decimals)).saturating_add(unit / 2)) / unit;
    if decimals == 0 && scaled == 1000 && power < LARGEST_POWER {
        scaled = 1;
        power += 1;
    }
    let digits = decimal(scaled, decimals);
    let trimmed = if decimals > 0 { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{trimmed}{}", suffix(power))
}

/// The round values of an axis that begins at zero: all multiples of `step` from 0 to [`Ticks::top`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticks {
    /// 1, 2 or 5 times a power of ten.
    pub step: u128,
    /// Steps between zero and the top, at least 1.
    pub steps: u128,
}

impl Ticks {
    /// The finest round scale from zero to at least `max` with at most `steps_max` steps (0 is taken
    /// as 1). Its top is never zero, so that an axis made of it is never empty.
    #[must_use]
    pub fn covering(max: u64, steps_max: u32) -> Self {
        let max = u128::from(max.max(1));
        let steps_max = u128::from(steps_max.max(1));
        let mut power = 1;
        loop {
            for step in [power, 2 * power, 5 * power] {
                if step * steps_max >= max {
                    return Self { step, steps: max.div_ceil(step) };
                }
            }
            power *= 10;
        }
    }

    /// The largest tick.
    #[must_use]
    pub fn top(&self) -> u128 {
        self.step * self.steps
    }

    pub fn values(&self) -> impl Iterator<Item = u128> + use<> {
        let step = self.step;
        (0..=self.steps).map(move |index| index * step)
    }

    /// How `value`, one of the ticks, is written: separators as long as the whole axis is below a
    /// million, else the suffix of the top and as many decimals as the step needs, so that all
    /// labels of one axis are of one kind.
    #[must_use]
    pub fn label(&self, value: u128) -> String {
        if value == 0 || self.top() < 1_000_000 {
            return grouped(value);
        }
        let power = (self.top().ilog10() / 3).min(LARGEST_POWER);
        let decimals = (power * 3).saturating_sub(self.step.ilog10());
        let tenth_parts = value / 10_u128.pow((power * 3).saturating_sub(decimals));
        format!("{}{}", decimal(tenth_parts, decimals), suffix(power))
    }
}

const SUFFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
const LARGEST_POWER: u32 = 6;

fn suffix(power: u32) -> &'static str {
    SUFFIXES.get(power as usize).copied().unwrap_or_default()
}

/// Writes `scaled / 10^decimals`.
fn decimal(scaled: u128, decimals: u32) -> String {
    let unit = 10_u128.pow(decimals);
    match decimals {
        0 => scaled.to_string(),
        _ => format!("{}.{:0width$}", scaled / unit, scaled % unit, width = decimals as usize),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thousands_are_separated() {
        let texts = [0, 7, 999, 1000, 12_345, 1_234_567, u128::from(u64::MAX)].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "12,345", "1,234,567", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn short_numbers_keep_three_digits_and_round_into_the_next_suffix() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1k"),
            (1234, "1.23k"),
            (9_996, "10k"),
            (12_345, "12.3k"),
            (100_000, "100k"),
            (999_499, "999k"),
            (999_500, "1M"),
            (4_200_000_000, "4.2G"),
            (u128::from(u64::MAX), "18.4E"),
        ];
        for (number, text) in cases {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn labels_of_one_axis_are_of_one_kind() {
        let labels = |max, steps| {
            let ticks = Ticks::covering(max, steps);
            ticks.values().map(|value| ticks.label(value)).collect::<Vec<_>>()
        };
        assert_eq!(labels(0, 5), ["0", "1"]);
        assert_eq!(labels(3, 5), ["0", "1", "2", "3"]);
        assert_eq!(labels(870, 5), ["0", "200", "400", "600", "800", "1,000"]);
        assert_eq!(labels(600_000, 3), ["0", "200,000", "400,000", "600,000"]);
        assert_eq!(labels(1_100_000, 3), ["0", "0.5M", "1.0M", "1.5M"]);
        assert_eq!(labels(3_000_000_000, 3), ["0", "1G", "2G", "3G"]);
        assert_eq!(labels(u64::MAX, 4), ["0", "5E", "10E", "15E", "20E"]);
        assert_eq!(labels(u64::MAX, 1), ["0", "20E"]);
    }

    proptest! {
        #[test]
        fn ticks_are_few_and_round_and_cover_the_maximum(max: u64, shift in 0_u32..64, steps_max in 0_u32..20) {
            let max = max >> shift;
            let ticks = Ticks::covering(max, steps_max);
            prop_assert!(ticks.top() >= u128::from(max).max(1));
            prop_assert!(ticks.top() - ticks.step < u128::from(max).max(1), "the last tick is needed");
            prop_assert!((1..=u128::from(steps_max.max(1))).contains(&ticks.steps));
            prop_assert!([1, 2, 5].contains(&(ticks.step / 10_u128.pow(ticks.step.ilog10()))));
            let values: Vec<_> = ticks.values().collect();
            prop_assert!(values.is_sorted_by(|a, b| a < b));
            let mut labels: Vec<_> = values.iter().map(|value| ticks.label(*value)).collect();
            labels.dedup();
            prop_assert_eq!(labels.len(), values.len(), "every tick has a label of its own");
        }

        #[test]
        fn short_numbers_are_short(number: u64, shift in 0_u32..64) {
            prop_assert!(short(u128::from(number >> shift)).len() <= 5);
        }
    }
}
