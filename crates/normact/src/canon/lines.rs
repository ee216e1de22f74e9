//! Lines of a stream, of bounded length, in batches of what is there to be read.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// The longest line that is kept, in bytes.
pub(crate) const MAX_LINE: usize = 64 << 20;
/// The most lines of a batch.
const BATCH_LINES: usize = 256;
/// A batch ends with the line that brings it to so many bytes.
const BATCH_BYTES: usize = 1 << 20;
const BUFFER: usize = 256 << 10;

/// A line without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    Bytes(Vec<u8>),
    /// It is longer than [`MAX_LINE`], and was not kept.
    TooLong,
}

/// The lines of a stream.
pub(crate) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    longest: usize,
    /// How many bytes were read.
    bytes: u64,
}

impl Lines {
    pub(crate) fn new(stream: Box<dyn Read + Send>) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER, stream), longest: MAX_LINE, bytes: 0 }
    }

    /// The next line; the last one needs no newline.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut length = 0;
        loop {
            let part = match self.reader.fill_buf() {
                Ok(part) => part,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if part.is_empty() && length == 0 {
                return Ok(None);
            }
            let newline = part.iter().position(|&byte| byte == b'\n');
            let content = &part[..newline.unwrap_or(part.len())];
            length += content.len();
            if length <= self.longest {
                line.extend_from_slice(content);
            } else {
                // What was kept of it is let go at once.
                line = Vec::new();
            }
            let ends = newline.is_some() || part.is_empty();
            let consumed = content.len() + usize::from(newline.is_some());
            self.reader.consume(consumed);
            self.bytes += consumed as u64;
            if ends {
                return Ok(Some(if length <= self.longest { Line::Bytes(line) } else { Line::TooLong }));
            }
        }
    }

    /// Reads over so many lines and tells how many there were.
    pub(crate) fn skip(&mut self, count: u64) -> io::Result<u64> {
        let longest = std::mem::replace(&mut self.longest, 0);
        let mut skipped = 0;
        while skipped < count && self.next()?.is_some() {
            skipped += 1;
        }
        self.longest = longest;
        Ok(skipped)
    }

    /// Whether the next line might have to be waited for.
    fn is_drained(&self) -> bool {
        self.reader.buffer().is_empty()
    }
}

/// Lines that are worked on together.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The number of the first line, from 1.
    pub(crate) first: u64,
    pub(crate) lines: Vec<Line>,
    /// Where in the stream the batch ends.
    pub(crate) end: u64,
}

/// The batches of a stream. A batch ends where there is nothing more to read at the moment, so that
/// a program that writes one line and waits for the answer gets it.
pub(crate) struct Batches {
    lines: Lines,
    next: u64,
    failed: bool,
}

impl Batches {
    /// The lines that are left; the next has this number.
    pub(crate) fn new(lines: Lines, next: u64) -> Self {
        Self { lines, next, failed: false }
    }
}

impl Iterator for Batches {
    type Item = io::Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Batch { first: self.next, lines: Vec::new(), end: 0 };
        let mut bytes = 0;
        while !self.failed && batch.lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
            match self.lines.next() {
                Ok(None) => break,
                Ok(Some(line)) => {
                    if let Line::Bytes(line) = &line {
                        bytes += line.len();
                    }
                    batch.lines.push(line);
                }
                Err(error) if batch.lines.is_empty() => {
                    self.failed = true;
                    return Some(Err(error));
                }
                // The lines before the failure count; reading on shows it again.
                Err(_) => break,
            }
            if self.lines.is_drained() {
                break;
            }
        }
        self.next += batch.lines.len() as u64;
        batch.end = self.lines.bytes;
        (!batch.lines.is_empty()).then_some(Ok(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Slow(Vec<u8>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() || buffer.is_empty() {
                return Ok(0);
            }
            buffer[0] = self.0.remove(0);
            Ok(1)
        }
    }

    fn all(text: &str, longest: usize) -> Vec<Line> {
        let read = |stream: Box<dyn Read + Send>| {
            let mut lines = Lines { longest, ..Lines::new(stream) };
            let mut found = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                found.push(line);
            }
            assert_eq!(lines.bytes, text.len() as u64);
            found
        };
        let at_once = read(Box::new(io::Cursor::new(text.as_bytes().to_vec())));
        assert_eq!(at_once, read(Box::new(Slow(text.as_bytes().to_vec()))), "{text:?}");
        at_once
    }

    fn bytes(text: &str) -> Line {
        Line::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_end_with_a_newline_or_the_stream() {
        assert_eq!(all("", 9), []);
        assert_eq!(all("\n", 9), [bytes("")]);
        assert_eq!(all("a\n\nb", 9), [bytes("a"), bytes(""), bytes("b")]);
        assert_eq!(all("a\nb\n", 9), [bytes("a"), bytes("b")]);
    }

    #[test]
    fn long_lines_are_not_kept() {
        assert_eq!(all("123\n1234\n12345\n1\n", 4), [bytes("123"), bytes("1234"), Line::TooLong, bytes("1")]);
        assert_eq!(all("12345", 4), [Line::TooLong]);
    }

    #[test]
    fn skipping_reads_over_lines() {
        let mut lines = Lines::new(Box::new(io::Cursor::new(b"a\n\nccc\nd".to_vec())));
        assert_eq!(lines.skip(3).unwrap(), 3);
        assert_eq!(lines.next().unwrap(), Some(bytes("d")));
        assert_eq!(lines.skip(3).unwrap(), 0);
    }

    #[test]
    fn batches_do_not_wait_for_more() {
        let batches = Batches::new(Lines::new(Box::new(Slow(b"a\nb\n".to_vec()))), 5);
        let found: Vec<(u64, usize, u64)> =
            batches.map(|batch| batch.unwrap()).map(|Batch { first, lines, end }| (first, lines.len(), end)).collect();
        assert_eq!(found, [(5, 1, 2), (6, 1, 4)]);
        let text = "x\n".repeat(600);
        let batches = Batches::new(Lines::new(Box::new(io::Cursor::new(text.into_bytes()))), 1);
        let sizes: Vec<usize> = batches.map(|batch| batch.unwrap().lines.len()).collect();
        assert_eq!(sizes, [256, 256, 88]);
    }
}
