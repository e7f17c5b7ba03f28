//! Values in job files: checked where they are read, so that a mistake is told with its line.

use crate::cli::units::{parse_rate, parse_time};
use crate::error::{Error, Result};
use crate::remote::HostSpec;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// A time span as it was written: `15m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeSpan {
    text: String,
    time: Duration,
}

impl TimeSpan {
    /// The time.
    pub fn get(&self) -> Duration {
        self.time
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = Error;

    fn try_from(text: String) -> Result<TimeSpan> {
        let time = parse_time(&text)?;
        Ok(TimeSpan { text, time })
    }
}

impl std::str::FromStr for TimeSpan {
    type Err = Error;

    fn from_str(text: &str) -> Result<TimeSpan> {
        text.to_owned().try_into()
    }
}

impl From<TimeSpan> for String {
    fn from(time: TimeSpan) -> String {
        time.text
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Bytes a second as they were written: `100M`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(String);

impl TryFrom<String> for Rate {
    type Error = Error;

    fn try_from(text: String) -> Result<Rate> {
        parse_rate(&text).map(|_| Rate(text))
    }
}

impl std::str::FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rate> {
        text.to_owned().try_into()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One host or several, each once: a text, or a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// These hosts, if each of them can be one.
    pub fn new(hosts: Vec<String>) -> Result<Hosts> {
        let mut once: Vec<String> = Vec::new();
        for host in hosts {
            HostSpec::parse(&host)?;
            if !once.contains(&host) {
                once.push(host);
            }
        }
        Ok(Hosts(once))
    }

    /// As they were written.
    pub fn hosts(&self) -> &[String] {
        &self.0
    }
}

impl Serialize for Hosts {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Hosts, D::Error> {
        struct HostsVisitor;
        impl<'de> Visitor<'de> for HostsVisitor {
            type Value = Hosts;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a host, or a list of hosts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Hosts, E> {
                Hosts::new(vec![text.to_owned()]).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> std::result::Result<Hosts, A::Error> {
                let mut hosts = Vec::new();
                while let Some(host) = list.next_element::<String>()? {
                    hosts.push(host);
                }
                Hosts::new(hosts).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(HostsVisitor)
    }
}
