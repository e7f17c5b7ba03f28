//! Reading what Perl wrote: a number may come as text, a text that looks like a number as one, and a flag as 0, 1,
//! "0", "1", "", true, false or null.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A flag. Nothing is no.
pub(super) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(flag),
        Value::Number(n) if n.as_u64() == Some(0) => Ok(false),
        Value::Number(n) if n.as_u64() == Some(1) => Ok(true),
        Value::String(s) if s.is_empty() || s == "0" => Ok(false),
        Value::String(s) if s == "1" => Ok(true),
        other => Err(D::Error::custom(format!("{other} is neither 0 nor 1"))),
    }
}

/// A whole number that is not negative.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    optional_number(from)?.ok_or_else(|| D::Error::custom("null is not a number"))
}

/// The same, or nothing.
pub(super) fn optional_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let read = match Value::deserialize(from)? {
        Value::Null => return Ok(None),
        Value::Number(n) => n.as_u64().ok_or_else(|| n.to_string()),
        Value::String(s) => s.parse().map_err(|_| format!("{s:?}")),
        other => Err(other.to_string()),
    };
    read.map(Some)
        .map_err(|other| D::Error::custom(format!("{other} is not a whole number")))
}

/// A text, or nothing; the empty text is one.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(s) => Ok(Some(s)),
        Value::Number(n) => Ok(Some(n.to_string())),
        other => Err(D::Error::custom(format!("{other} is not a text"))),
    }
}

/// A text.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    optional_text(from)?.ok_or_else(|| D::Error::custom("null is not a text"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_that_perl_writes_a_flag_is_read() {
        for yes in [json!(1), json!("1"), json!(true)] {
            assert!(flag(yes).unwrap());
        }
        for no in [json!(0), json!("0"), json!(""), json!(false), json!(null)] {
            assert!(!flag(no).unwrap());
        }
        for neither in [json!(2), json!("yes"), json!([]), json!(-1)] {
            flag(neither).unwrap_err();
        }
    }

    #[test]
    fn numbers_and_texts_come_as_each_other() {
        assert_eq!(number(json!("42")).unwrap(), 42);
        assert_eq!(number(json!(42)).unwrap(), 42);
        assert_eq!(optional_number(json!(null)).unwrap(), None);
        for bad in [json!(-1), json!("x"), json!(1.5), json!({}), json!("")] {
            number(bad).unwrap_err();
        }
        assert_eq!(text(json!(101)).unwrap(), "101");
        text(json!(null)).unwrap_err();
        text(json!([])).unwrap_err();
    }
}
