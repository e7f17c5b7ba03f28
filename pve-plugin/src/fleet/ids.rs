//! Lists of VM ids, as people write them: `101,105-110`.

use crate::volid::Vmid;
use rblocksync::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest list that is taken, in bytes.
const LIST_BYTES_MAX: usize = 64 << 10;

/// One part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// This VM.
    One(Vmid),
    /// Those from the first to the last that there are.
    Range(Vmid, Vmid),
}

/// A list of ids and ranges; not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdList(Vec<Ids>);

impl IdList {
    /// Its parts.
    pub fn parts(&self) -> &[Ids] {
        &self.0
    }

    /// The id, if it is nothing but one.
    pub fn single(&self) -> Option<Vmid> {
        match self.0.as_slice() {
            [Ids::One(vmid)] => Some(*vmid),
            _ => None,
        }
    }

    /// One list of several; `None` if there are none.
    pub fn join(lists: &[IdList]) -> Option<IdList> {
        let parts: Vec<Ids> = lists.iter().flat_map(|l| l.0.iter().copied()).collect();
        (!parts.is_empty()).then_some(IdList(parts))
    }

    /// Whether the id is listed or in a range.
    pub fn has(&self, vmid: Vmid) -> bool {
        self.0.iter().any(|part| match part {
            Ids::One(one) => *one == vmid,
            Ids::Range(first, last) => (*first..=*last).contains(&vmid),
        })
    }
}

/// Lists in job files: one text for all of them.
pub(super) mod joined {
    use super::IdList;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(lists: &[IdList], serializer: S) -> Result<S::Ok, S::Error> {
        IdList::join(lists).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IdList>, D::Error> {
        IdList::deserialize(from).map(|list| vec![list])
    }
}

impl FromStr for IdList {
    type Err = Error;

    fn from_str(text: &str) -> Result<IdList> {
        if text.len() > LIST_BYTES_MAX {
            return Err(Error::new(Kind::Usage, "the list of VM ids is too long"));
        }
        let part = |text: &str| -> Result<Ids> {
            let text = text.trim();
            let Some((first, last)) = text.split_once('-') else {
                return text.parse().map(Ids::One);
            };
            let (first, last): (Vmid, Vmid) = (first.parse()?, last.parse()?);
            if first > last {
                let what = format!("{first}-{last} ends before it begins");
                return Err(Error::new(Kind::Usage, what)
                    .advise(format!("write the smaller id first: {last}-{first}")));
            }
            Ok(Ids::Range(first, last))
        };
        text.split(',').map(part).collect::<Result<_>>().map(IdList)
    }
}

impl TryFrom<String> for IdList {
    type Error = Error;

    fn try_from(text: String) -> Result<IdList> {
        text.parse()
    }
}

impl From<IdList> for String {
    fn from(list: IdList) -> String {
        list.to_string()
    }
}

impl fmt::Display for IdList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            match part {
                Ids::One(vmid) => write!(f, "{vmid}")?,
                Ids::Range(first, last) => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_and_ranges() {
        let list: IdList = "101, 105-110,120".parse().unwrap();
        assert_eq!(list.to_string(), "101,105-110,120");
        assert_eq!(list.single(), None);
        for (id, has) in [
            (101, true),
            (102, false),
            (105, true),
            (110, true),
            (111, false),
        ] {
            assert_eq!(list.has(Vmid::new(id).unwrap()), has, "{id}");
        }
        let one: IdList = "101".parse().unwrap();
        assert_eq!(one.single(), Some(Vmid::new(101).unwrap()));
        assert_eq!("101,101".parse::<IdList>().unwrap().single(), None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            "",
            ",",
            "101,",
            ",101",
            "99",
            "0101",
            "110-105",
            "101-",
            "-101",
            "101-102-103",
            "a",
            "101;102",
            "101 102",
            "+101",
            "1e3",
            "9999999999",
        ] {
            let e = bad.parse::<IdList>().unwrap_err();
            assert_eq!(e.kind(), Kind::Usage, "{bad}");
        }
        assert!("1".repeat(70_000).parse::<IdList>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9,\\- a]{0,40}") {
            if let Ok(list) = text.parse::<IdList>() {
                prop_assert_eq!(list.to_string().parse::<IdList>().unwrap(), list);
            }
        }
    }
}
