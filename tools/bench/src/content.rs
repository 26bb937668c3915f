//! Bytes and numbers that look random and are the same on every machine, in every version.

use blake3::{Hasher, OutputReader};

/// A stream of bytes that depends on its name alone: BLAKE3's extendable output.
pub(crate) struct Content {
    reader: OutputReader,
}

impl Content {
    /// The stream called `name`.
    pub(crate) fn new(name: &str) -> Content {
        Content {
            reader: Hasher::new_derive_key("xfer-bench 2026 workload content").update(name.as_bytes()).finalize_xof(),
        }
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.reader.fill(bytes);
    }

    /// The next bytes, as a vector.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.fill(&mut bytes);
        bytes
    }

    /// A number below `bound`, which must not be 0. The bias of the remainder is below 2⁻³² for bounds up to 2³².
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    /// Uniform in (0, 1].
    pub(crate) fn unit(&mut self) -> f64 {
        (self.below(1 << 53) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Log-normal: the logarithm has mean 0 and standard deviation `sigma` (Box and Muller's method).
    pub(crate) fn log_normal(&mut self, sigma: f64) -> f64 {
        let (radius, angle) = ((-2.0 * self.unit().ln()).sqrt(), std::f64::consts::TAU * self.unit());
        (sigma * radius * angle.cos()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_depends_on_its_name_alone_and_never_changes() {
        assert_eq!(Content::new("a").bytes(64), Content::new("a").bytes(64));
        assert_ne!(Content::new("a").bytes(64), Content::new("b").bytes(64));
        let mut parts = Content::new("a");
        let joined = [parts.bytes(10), parts.bytes(54)].concat();
        assert_eq!(joined, Content::new("a").bytes(64));
    }

    #[test]
    fn log_normal_sizes_have_the_median_one() {
        let mut content = Content::new("sizes");
        let mut sizes: Vec<f64> = (0..10_001).map(|_| content.log_normal(1.6)).collect();
        sizes.sort_by(f64::total_cmp);
        assert!((0.9..1.1).contains(&sizes[5_000]), "{}", sizes[5_000]);
        assert!(sizes[10_000] > 50.0 * sizes[5_000]);
    }
}
