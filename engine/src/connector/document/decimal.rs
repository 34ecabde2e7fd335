//! IEEE 754 decimal128 in its binary integer form, as BSON has it: sign, 14 bits of exponent, 113 bits of coefficient.

const EXPONENT_BIAS: i32 = 6176;
const EXPONENT_MAX: i32 = 6111;
const COEFFICIENT_BITS: u32 = 113;
/// The largest coefficient: 34 nines.
pub(super) const COEFFICIENT_MAX: u128 = 10_u128.pow(34) - 1;

/// Packs `coefficient · 10^-scale`, or nothing when it has more than 34 digits.
pub(super) fn pack_decimal(coefficient: i128, scale: i8) -> Option<[u8; 16]> {
    let magnitude = coefficient.unsigned_abs();
    let exponent = -i32::from(scale);
    if magnitude > COEFFICIENT_MAX {
        return None;
    }
    let sign = u128::from(coefficient < 0) << 127;
    let biased = u128::from((exponent + EXPONENT_BIAS).unsigned_abs()) << COEFFICIENT_BITS;
    Some((sign | biased | magnitude).to_le_bytes())
}

/// A finite decimal: `coefficient · 10^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) coefficient: i128,
    pub(super) exponent: i32,
}

/// Unpacks a decimal128, or nothing when it is infinite or not a number.
pub(super) fn unpack_decimal(bytes: [u8; 16]) -> Option<Decimal> {
    let bits = u128::from_le_bytes(bytes);
    let special = (bits >> 122) & 0b1_1111;
    if special >= 0b1_1110 {
        return None;
    }
    // The other form (bits 126 and 125 set) only reaches coefficients of more than 34 digits, which IEEE 754 reads as zero.
    let (biased, magnitude) = if special >= 0b1_1000 {
        ((bits >> 111) & 0x3fff, 0)
    } else {
        let magnitude = bits & ((1 << COEFFICIENT_BITS) - 1);
        ((bits >> COEFFICIENT_BITS) & 0x3fff, if magnitude > COEFFICIENT_MAX { 0 } else { magnitude })
    };
    let exponent = i32::try_from(biased).ok()?.min(EXPONENT_MAX + EXPONENT_BIAS) - EXPONENT_BIAS;
    let magnitude = i128::try_from(magnitude).ok()?;
    Some(Decimal { coefficient: if bits >> 127 == 1 { -magnitude } else { magnitude }, exponent })
}

impl Decimal {
    /// The coefficient at `scale`, or nothing when digits would be lost or there are too many of them.
    pub(super) fn rescale(self, scale: i8) -> Option<i128> {
        if self.coefficient == 0 {
            return Some(0);
        }
        let shift = self.exponent + i32::from(scale);
        let factor = 10_i128.checked_pow(shift.unsigned_abs());
        if shift >= 0 {
            self.coefficient.checked_mul(factor?)
        } else {
            let factor = factor?;
            (self.coefficient % factor == 0).then_some(self.coefficient / factor)
        }
    }

    /// The smallest scale which keeps all its digits; never negative.
    pub(super) fn scale_needed(self) -> u32 {
        let mut exponent = self.exponent;
        let mut coefficient = self.coefficient;
        while exponent < 0 && coefficient % 10 == 0 {
            if coefficient == 0 {
                return 0;
            }
            coefficient /= 10;
            exponent += 1;
        }
        if exponent < 0 { exponent.unsigned_abs() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(coefficient: i128, scale: i8) -> String {
        bson::Decimal128::from_bytes(pack_decimal(coefficient, scale).unwrap()).to_string()
    }

    #[test]
    fn packed_decimals_read_the_same_in_the_bson_crate() {
        assert_eq!(text(314_159, 5), "3.14159");
        assert_eq!(text(-1, 0), "-1");
        assert_eq!(text(0, 2), "0.00");
        assert_eq!(text(5, -2), "5E+2");
        assert_eq!(text(10_i128.pow(34) - 1, 34), format!("0.{}", "9".repeat(34)));
        assert_eq!(pack_decimal(10_i128.pow(34), 0), None);
        assert_eq!(pack_decimal(i128::MIN, 0), None);
    }

    #[test]
    fn unpacking_reverses_packing_and_refuses_what_is_no_number() {
        for (coefficient, scale) in [(0, 0), (-42, 3), (i128::from(i64::MAX), -128), (10_i128.pow(34) - 1, 127)] {
            let decimal = unpack_decimal(pack_decimal(coefficient, scale).unwrap()).unwrap();
            assert_eq!(decimal, Decimal { coefficient, exponent: -i32::from(scale) });
        }
        for word in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(unpack_decimal(word.parse::<bson::Decimal128>().unwrap().bytes()), None, "{word}");
        }
    }

    #[test]
    fn rescaling_never_loses_a_digit() {
        let decimal = Decimal { coefficient: 1500, exponent: -3 };
        assert_eq!(decimal.rescale(1), Some(15));
        assert_eq!(decimal.rescale(0), None);
        assert_eq!(decimal.scale_needed(), 1);
        assert_eq!(Decimal { coefficient: 1, exponent: 6000 }.rescale(0), None);
        assert_eq!(Decimal { coefficient: 0, exponent: -6000 }.rescale(0), Some(0));
    }
}
