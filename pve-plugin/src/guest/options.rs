//! The value of a key that has parts: `virtio=BC:24:11:5A:10:01,bridge=vmbr0,tag=20`. What nobody takes is left.

use rblocksync::guest::Left;

/// The parts of a value.
pub(super) struct Options {
    key: String,
    parts: Vec<(String, String)>,
}

impl Options {
    /// Takes a value apart. A part without a name gets the name `default`.
    pub fn new(key: &str, default: &str, value: &str) -> Options {
        let parts = value.split(',').filter(|part| !part.is_empty());
        let parts = parts.map(|part| part.split_once('=').unwrap_or((default, part)));
        Options {
            key: key.to_owned(),
            parts: parts.map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        }
    }

    /// The same from parts that are known.
    pub fn of(key: &str, parts: &[(String, String)]) -> Options {
        Options {
            key: key.to_owned(),
            parts: parts.to_vec(),
        }
    }

    /// A part's value, which is dealt with from then on.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.parts.iter().position(|(n, _)| n == name)?;
        Some(self.parts.remove(at).1)
    }

    /// The first part whose name is one of these.
    pub fn take_any(&mut self, names: &[&str]) -> Option<(String, String)> {
        let at = self
            .parts
            .iter()
            .position(|(n, _)| names.contains(&n.as_str()))?;
        Some(self.parts.remove(at))
    }

    /// A yes or no, in all of Proxmox's spellings.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        self.take(name).map(|value| is_yes(&value))
    }

    /// A part whose value is understood; one that is not stays.
    pub fn parsed<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let at = self.parts.iter().position(|(n, _)| n == name)?;
        let read = read(&self.parts[at].1)?;
        self.parts.remove(at);
        Some(read)
    }

    /// Passes over a part that only says what is so anyway.
    pub fn drop_default(&mut self, name: &str, default: &str) {
        self.parts.retain(|(n, v)| n != name || v != default);
    }

    /// What was not taken.
    pub fn left(self) -> impl Iterator<Item = Left> {
        let key = self.key;
        self.parts
            .into_iter()
            .map(move |(name, value)| Left::out(format!("{key} {name}"), value))
    }
}

/// Proxmox's spellings of yes.
pub(super) fn is_yes(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "on" | "yes" | "true"
    )
}

/// Bytes as text of the alphabet of RFC 4648.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, b| (word << 8) | u32::from(*b));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            match place <= chunk.len() {
                true => text.push(char::from(BASE64[(word >> (18 - 6 * place)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

/// The text in base64; `None` if it is none.
pub(super) fn from_base64(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = BASE64.iter().position(|b| *b == byte)?;
        word = ((word << 6) | u32::try_from(digit).ok()?) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((word >> bits) & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("Gr\u{fc}\u{df}e >?", "R3LDvMOfZSA+Pw=="),
        ] {
            assert_eq!(to_base64(text.as_bytes()), coded);
            assert_eq!(from_base64(coded).as_deref(), Some(text));
        }
        assert_eq!(from_base64("a*b"), None);
    }
}
