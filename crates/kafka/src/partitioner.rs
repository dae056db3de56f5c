//! Which partition a key belongs to, as Java's clients and librdkafka's `murmur2_random` compute it.

/// The seed that Kafka's `DefaultPartitioner` fixes.
const SEED: u32 = 0x9747_b28c;

/// The partition of `key` among `partitions` (at least 1).
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let positive = murmur2::murmur2(key, SEED) & 0x7fff_ffff;
    // Both are below 2^31, so neither conversion changes the number.
    i32::try_from(positive).unwrap_or_default() % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`, taken to 31 bits as its partitioner does.
    #[test]
    fn agrees_with_java() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(partition_of(key.as_bytes(), i32::MAX), (hash & i32::MAX) % i32::MAX, "{key}");
        }
    }
}
