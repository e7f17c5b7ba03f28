//! Lines of a stream, with bounded memory.

/// The longest line that is kept, in bytes: the plan of a VM with its 67 disks has less than a tenth.
const LINE_BYTES_MAX: usize = 256 << 10;

/// Cuts a stream into lines. Longer ones than 256 KiB are dropped, and counted.
#[derive(Default)]
pub(super) struct Lines {
    part: Vec<u8>,
    skips: bool,
    /// Lines that were dropped.
    pub(super) dropped: u64,
}

impl Lines {
    /// Takes the next bytes of the stream; `line` gets each line that ends in them, without its end.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.keep(&bytes[..end]);
            self.end(&mut line);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The stream has ended: what is left counts as a line.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.part.is_empty() || self.skips {
            self.end(&mut line);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skips || self.part.len() + bytes.len() > LINE_BYTES_MAX {
            self.skips = true;
            self.part = Vec::new();
        } else {
            self.part.extend_from_slice(bytes);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(&[u8])) {
        match self.skips {
            true => self.dropped += 1,
            false => line(&self.part),
        }
        self.skips = false;
        self.part.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_stream_is_cut() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        let most = vec![b'y'; LINE_BYTES_MAX];
        let stream = [&b"a\n\nbc\n"[..], &long, b"\n", &most, b"\nend"].concat();
        for piece in [1, 2, 7, 65_536, stream.len()] {
            let mut found = Vec::new();
            let mut lines = Lines::default();
            for bytes in stream.chunks(piece) {
                lines.take(bytes, |line| found.push(line.to_vec()));
            }
            lines.finish(|line| found.push(line.to_vec()));
            let want: Vec<Vec<u8>> = vec![
                b"a".to_vec(),
                Vec::new(),
                b"bc".to_vec(),
                most.clone(),
                b"end".to_vec(),
            ];
            assert!(found == want, "in pieces of {piece}");
            assert_eq!(lines.dropped, 1);
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let mut lines = Lines::default();
        for _ in 0..64 {
            lines.take(&[b'z'; 65_536], |_| panic!("there is no line"));
            assert!(lines.part.capacity() <= 2 * LINE_BYTES_MAX);
        }
        lines.finish(|_| panic!("it is too long"));
        assert_eq!(lines.dropped, 1);
    }
}
