//! Draws the irreducible polynomial that every restic repository carries in its config.
//!
//! We cut blobs at object borders and never use it, but restic refuses a repository without one and cuts its own
//! backups into the same repository by it. Polynomials over GF(2) are bits of a `u64`; the test is Ben-Or's.

const DEGREE: u32 = 53;

/// A random irreducible polynomial of degree 53 over GF(2), one bit a coefficient.
pub(crate) fn random_irreducible() -> u64 {
    loop {
        let candidate = candidate(rand::random());
        if is_irreducible(candidate) {
            return candidate;
        }
    }
}

/// Reads a polynomial as restic does: hexadecimal digits, of an irreducible one. The error says what is wrong.
pub(crate) fn parse(digits: &str) -> Result<u64, &'static str> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = if is_number { u64::from_str_radix(digits, 16).ok() } else { None };
    let polynomial = number.ok_or("it is no hexadecimal number of 64 bits")?;
    if is_irreducible(polynomial) { Ok(polynomial) } else { Err("it is not irreducible") }
}

/// Sets the highest and the constant coefficient: without the latter x divides it.
fn candidate(bits: u64) -> u64 {
    (bits & ((1 << DEGREE) - 1)) | (1 << DEGREE) | 1
}

/// Ben-Or: `f` is irreducible if gcd(f, x^(2^i) - x) is 1 for every i up to half its degree.
fn is_irreducible(f: u64) -> bool {
    const X: u64 = 0b10;
    let mut power = X;
    degree(f) > 0
        && (1..=degree(f) / 2).all(|_| {
            power = multiply(power, power, f);
            gcd(f, power ^ X) == 1
        })
}

fn degree(f: u64) -> u32 {
    f.checked_ilog2().unwrap_or(0)
}

fn remainder(mut a: u64, f: u64) -> u64 {
    while a != 0 && degree(a) >= degree(f) {
        a ^= f << (degree(a) - degree(f));
    }
    a
}

fn multiply(a: u64, b: u64, f: u64) -> u64 {
    let top = degree(f);
    let (mut shifted, mut product) = (remainder(a, f), 0);
    for bit in 0..top {
        if b >> bit & 1 == 1 {
            product ^= shifted;
        }
        shifted <<= 1;
        if shifted >> top & 1 == 1 {
            shifted ^= f;
        }
    }
    product
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, remainder(a, b)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By trial division, for degrees where that is quick.
    fn has_divisor(f: u64) -> bool {
        (2..1 << (degree(f) / 2 + 1)).any(|divisor| remainder(f, divisor) == 0)
    }

    #[test]
    fn the_test_agrees_with_trial_division_on_all_small_polynomials() {
        for f in 4..4096 {
            assert_eq!(is_irreducible(f), !has_divisor(f), "{f:b}");
        }
    }

    #[test]
    fn the_polynomial_of_restics_own_documentation_is_irreducible() {
        assert!(is_irreducible(0x25_b468_838d_cb75));
        assert!(!is_irreducible(0x25_b468_838d_cb74));
    }

    #[test]
    fn only_digits_of_an_irreducible_polynomial_are_read() {
        assert_eq!(parse("25b468838dcb75"), Ok(0x25_b468_838d_cb75));
        for text in
            ["", "0", "1", "25b468838dcb74", "+25b468838dcb75", "-1", "0x7", "ffffffffffffffff0", "ffffffffffffffff"]
        {
            parse(text).unwrap_err();
        }
        assert_eq!((parse("2"), parse("3"), parse("7")), (Ok(2), Ok(3), Ok(7)));
    }

    #[test]
    fn drawn_polynomials_have_degree_53_and_differ() {
        let (a, b) = (random_irreducible(), random_irreducible());
        assert_eq!((degree(a), degree(b)), (DEGREE, DEGREE));
        assert_ne!(a, b);
    }
}
