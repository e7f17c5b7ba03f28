//! One request to the API, whichever way it goes.

use super::calls::{Method, Spec};
use rblocksync::error::{Error, Kind, Result};
use serde_json::Value;
use std::fmt;

/// One request: an entry of the table of calls with its blanks filled in.
#[derive(Debug, Clone)]
pub struct Call {
    spec: &'static Spec,
    segments: Vec<String>,
    params: Vec<(String, String)>,
}

impl Call {
    /// Fills in the blanks of the path, in their order. A blank without a value stays as it is, and Proxmox VE
    /// refuses it: the types of what is filled in (node, VM id, volume id) hold no braces.
    pub(super) fn new(spec: &'static Spec, blanks: &[&dyn fmt::Display]) -> Call {
        let mut blanks = blanks.iter();
        let segments = spec.template.split('/').skip(1).map(|segment| {
            match segment.starts_with('{').then(|| blanks.next()).flatten() {
                Some(value) => value.to_string(),
                None => segment.to_owned(),
            }
        });
        Call {
            spec,
            segments: segments.collect(),
            params: Vec::new(),
        }
    }

    /// Adds a parameter.
    pub(super) fn with(mut self, name: impl Into<String>, value: impl fmt::Display) -> Call {
        self.params.push((name.into(), value.to_string()));
        self
    }

    /// The entry of the table.
    pub fn spec(&self) -> &'static Spec {
        self.spec
    }

    /// GET changes nothing, and so may be asked again.
    pub fn method(&self) -> Method {
        self.spec.method
    }

    /// The parts of the path, as they are: a volume's name may hold slashes.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The path as `pvesh` takes it.
    pub fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }

    /// Names and values of the parameters.
    pub fn params(&self) -> &[(String, String)] {
        &self.params
    }
}

/// Without the parameters, which may hold what is nobody's business.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.path())
    }
}

/// A way to Proxmox VE. Whatever is one can make all calls of [`Pve`](super::Pve).
pub trait Transport {
    /// Makes the call, and gives the `data` of the answer. What Proxmox VE refuses is an error.
    fn send(&self, call: &Call) -> Result<Value>;
}

/// The answer to `call` was not what it should be.
pub(super) fn odd_answer(
    call: &Call,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(
        Kind::Protocol,
        format!("the answer of Proxmox VE to {call} makes no sense"),
    )
    .because(why)
}
