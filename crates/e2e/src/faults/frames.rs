//! Finds the frames of Kafka's protocol in a stream of bytes. Source of the format: Apache Kafka's protocol guide.

/// Length (4 bytes), key of the request (2), its version (2), its number (4).
const QUESTION_HEAD_LEN: usize = 12;

/// Length (4 bytes), number of the request (4).
const ANSWER_HEAD_LEN: usize = 8;

/// The key of `EndTxn`.
const END_TXN: [u8; 2] = [0, 26];

/// The keys of writing requests: `Produce`, `OffsetCommit`, `AddPartitionsToTxn`, `AddOffsetsToTxn`, `EndTxn`,
/// `TxnOffsetCommit`.
const WRITES: [[u8; 2]; 6] = [[0, 0], [0, 8], [0, 24], [0, 25], END_TXN, [0, 28]];

/// The parts of a frame that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// The correlation id, which the response repeats.
    pub(super) number: i32,
    /// Whether it ends a transaction.
    pub(super) is_commit: bool,
    /// Whether it writes a record, an offset or a step of a transaction.
    pub(super) is_write: bool,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Frames {
    head_len: usize,
    head: Vec<u8>,
    /// The remaining bytes of the current frame.
    left: usize,
}

impl Frames {
    pub(super) fn new(is_answers: bool) -> Self {
        let head_len = if is_answers { ANSWER_HEAD_LEN } else { QUESTION_HEAD_LEN };
        Self { head_len, head: Vec::with_capacity(head_len), left: 0 }
    }

    /// Returns the frames whose heads these bytes complete.
    pub(super) fn of(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.head_len - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() == self.head_len {
                let head = std::mem::take(&mut self.head);
                let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
                let len = u32::from_be_bytes(four(0)) as usize + 4;
                self.left = len.saturating_sub(self.head_len);
                let number = i32::from_be_bytes(four(self.head_len - 4));
                let key = [head[4], head[5]];
                let is_write = self.head_len == QUESTION_HEAD_LEN && WRITES.contains(&key);
                frames.push(Frame { number, is_commit: is_write && key == END_TXN, is_write });
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_frames_in_pieces_of_any_size() {
        let mut stream = Vec::new();
        for (key, number, body_len) in [(0_u8, 7_u8, 300_usize), (26, 8, 0), (3, 9, 1)] {
            let len = u32::try_from(8 + body_len).expect("small");
            stream.extend(len.to_be_bytes());
            stream.extend([0, key, 0, 1, 0, 0, 0, number]);
            stream.extend(vec![26; body_len]);
        }
        let expected = [(7, false, true), (8, true, true), (9, false, false)]
            .map(|(number, is_commit, is_write)| Frame { number, is_commit, is_write });
        for piece_len in [1, 5, 12, 13, 100, stream.len()] {
            let mut frames = Frames::new(false);
            let found: Vec<_> = stream.chunks(piece_len).flat_map(|piece| frames.of(piece)).collect();
            assert_eq!(found, expected, "in pieces of {piece_len}");
        }
        let mut answers = Frames::new(true);
        assert_eq!(answers.of(&[0, 0, 0, 4, 0, 0, 1, 0]), [Frame { number: 256, is_commit: false, is_write: false }]);
    }
}
