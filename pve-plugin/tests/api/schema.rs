//! The schema of Proxmox VE's API: which paths there are, and what their parameters may be.

use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is wrong with a request: by parameter, or with the path itself.
#[derive(Debug, PartialEq)]
pub enum Fault {
    NoSuchPath,
    Parameters(BTreeMap<String, String>),
}

pub struct Schema {
    paths: Map<String, Value>,
}

/// A request that was recognised: the template, and what stands for its blanks.
#[derive(Debug, Clone)]
pub struct Matched {
    pub template: String,
    pub blanks: BTreeMap<String, String>,
}

impl Schema {
    pub fn load() -> Schema {
        let mut paths = Map::new();
        for text in [
            include_str!("../fixtures/pve-api.json"),
            include_str!("../fixtures/pve-api-ha.json"),
        ] {
            let mut all: Value = serde_json::from_str(text).unwrap();
            let Value::Object(more) = all["paths"].take() else {
                panic!("no paths");
            };
            paths.extend(more);
        }
        Schema { paths }
    }

    /// Literal parts win over blanks, and a volume's name may go on over slashes.
    pub fn find(&self, path: &str) -> Option<Matched> {
        let mut found: Vec<Matched> = self
            .paths
            .keys()
            .filter_map(|template| fit(template, path))
            .collect();
        found.sort_by_key(|m| m.blanks.len());
        found.into_iter().next()
    }

    /// Checks a request as Proxmox VE would.
    pub fn check(
        &self,
        method: &str,
        path: &str,
        params: &[(String, String)],
    ) -> Result<Matched, Fault> {
        let matched = self.find(path).ok_or(Fault::NoSuchPath)?;
        let declared = self.paths[&matched.template]
            .get(method)
            .and_then(|m| m["parameters"].as_object())
            .ok_or(Fault::NoSuchPath)?;
        let mut given: Vec<(&str, &str)> = params.iter().map(|(n, v)| (&**n, &**v)).collect();
        given.extend(matched.blanks.iter().map(|(n, v)| (&**n, &**v)));
        let mut faults = BTreeMap::new();
        for (at, (name, value)) in given.iter().enumerate() {
            let fault = match declaration(declared, name) {
                None => Some("property is not defined in schema".to_owned()),
                Some(rule) => fault_of(rule, value).or_else(|| {
                    let needed = rule["requires"].as_str()?;
                    let missing = !given.iter().any(|(n, _)| *n == needed);
                    missing.then(|| format!("missing property - '{needed}'"))
                }),
            };
            let twice = given[..at].iter().any(|(n, _)| n == name);
            if let Some(why) = fault.or_else(|| twice.then(|| "given twice".to_owned())) {
                faults.insert((*name).to_owned(), why);
            }
        }
        for (name, rule) in declared {
            let optional = rule["optional"].as_u64() == Some(1);
            if !optional && !given.iter().any(|(n, _)| n == name) {
                let why = "property is missing and it is not optional";
                faults.insert(name.clone(), why.to_owned());
            }
        }
        match faults.is_empty() {
            true => Ok(matched),
            false => Err(Fault::Parameters(faults)),
        }
    }

    /// Patterns that cannot be checked here, because they are written in what only Perl knows.
    pub fn unreadable_patterns(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, methods) in &self.paths {
            for (method, spec) in methods.as_object().unwrap() {
                for (name, rule) in spec["parameters"].as_object().unwrap() {
                    if let Some(pattern) = rule["pattern"].as_str() {
                        if whole(pattern).is_none() {
                            found.push(format!("{method} {path} {name}"));
                        }
                    }
                }
            }
        }
        found
    }
}

fn fit(template: &str, path: &str) -> Option<Matched> {
    let mut blanks = BTreeMap::new();
    let mut wanted = template.split('/').peekable();
    let mut rest = Some(path);
    while let Some(want) = wanted.next() {
        let now = rest?;
        let last = wanted.peek().is_none();
        let (part, after) = match now.split_once('/') {
            Some(_) if last && want == "{volume}" => (now, None),
            Some((part, after)) => (part, Some(after)),
            None => (now, None),
        };
        match want.strip_prefix('{').and_then(|w| w.strip_suffix('}')) {
            Some(name) if !part.is_empty() => {
                blanks.insert(name.to_owned(), part.to_owned());
            }
            _ if want == part => {}
            _ => return None,
        }
        rest = after;
    }
    rest.is_none().then(|| Matched {
        template: template.to_owned(),
        blanks,
    })
}

/// `scsi3` is declared as `scsi[n]`.
fn declaration<'a>(declared: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    declared.get(name).or_else(|| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        declared.get(&format!("{stem}[n]")).filter(|_| stem != name)
    })
}

fn fault_of(rule: &Value, value: &str) -> Option<String> {
    let number = |value: Option<f64>| match value {
        None => Some(format!("type check ('{}') failed", rule["type"])),
        Some(n) if rule["minimum"].as_f64().is_some_and(|min| n < min) => {
            Some("value is too small".to_owned())
        }
        Some(n) if rule["maximum"].as_f64().is_some_and(|max| n > max) => {
            Some("value is too large".to_owned())
        }
        Some(_) => None,
    };
    let fault = match rule["type"].as_str() {
        Some("integer") => number(value.parse::<i64>().ok().map(|n| n as f64)),
        Some("number") => number(value.parse().ok()),
        Some("boolean") => {
            (value != "0" && value != "1").then(|| "type check ('boolean') failed".to_owned())
        }
        Some("string") => None,
        other => panic!("the schema has a parameter of type {other:?}"),
    };
    fault
        .or_else(|| {
            let most = rule["maxLength"].as_u64()?;
            (value.len() as u64 > most).then(|| "value is too long".to_owned())
        })
        .or_else(|| {
            let allowed = rule["enum"].as_array()?;
            (!allowed.iter().any(|a| a == value)).then(|| "not in the enumeration".to_owned())
        })
        .or_else(|| {
            let pattern = whole(rule["pattern"].as_str()?)?;
            (!pattern.is_match(value)).then(|| "value does not match the regex pattern".to_owned())
        })
        .or_else(|| {
            let format = Regex::new(format_pattern(rule["format"].as_str()?)?).unwrap();
            (!format.is_match(value)).then(|| "invalid format".to_owned())
        })
}

/// Formats are named and not described in the schema: these are those that matter here.
fn format_pattern(format: &str) -> Option<&'static str> {
    Some(match format {
        "pve-node" => "^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?$",
        "pve-vmid" => "^[1-9][0-9]{2,8}$",
        "pve-storage-id" => "^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]$",
        "pve-configid" => "^[a-zA-Z][a-zA-Z0-9_-]+$",
        "pve-configid-list" => "^[a-zA-Z][a-zA-Z0-9_-]+([,; ][a-zA-Z][a-zA-Z0-9_-]+)*$",
        _ => return None,
    })
}

/// A pattern of Perl's, for the whole value. Perl writes `(?^i:...)` for what others write `(?i:...)`.
fn whole(pattern: &str) -> Option<Regex> {
    let pattern = pattern.replace("(?^:", "(?:").replace("(?^i:", "(?i:");
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

fn params(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn all_patterns_of_the_schema_are_checked() {
    assert_eq!(Schema::load().unreadable_patterns(), [""; 0]);
}

#[test]
fn what_proxmox_would_refuse_is_refused() {
    let schema = Schema::load();
    let vm = "nodes/pve1/qemu/101";
    let faults = |method: &str, path: &str, list: &[(&str, &str)]| match schema.check(
        method,
        &format!("/{path}"),
        &params(list),
    ) {
        Ok(_) => String::new(),
        Err(Fault::NoSuchPath) => "no path".to_owned(),
        Err(Fault::Parameters(faults)) => faults.into_keys().collect::<Vec<_>>().join(","),
    };
    for (method, path, list, want) in [
        ("GET", "version", &[][..], ""),
        ("GET", "versions", &[], "no path"),
        ("POST", "version", &[], "no path"),
        ("GET", "version", &[("x", "1")], "x"),
        ("GET", "cluster/resources", &[("type", "vm")], ""),
        ("GET", "cluster/resources", &[("type", "vms")], "type"),
        ("GET", "nodes/pve1/qemu/99/config", &[], "vmid"),
        ("GET", "nodes/-l/qemu/101/config", &[], "node"),
        (
            "GET",
            "nodes/pve1/storage/local/content/local:101/x.qcow2",
            &[],
            "",
        ),
        ("POST", "nodes/pve1/qemu", &[], "vmid"),
        (
            "POST",
            "nodes/pve1/qemu",
            &[("vmid", "101"), ("scsi3", "x")],
            "",
        ),
        (
            "POST",
            "nodes/pve1/qemu",
            &[("vmid", "101"), ("disk3", "x")],
            "disk3",
        ),
        (
            "POST",
            "nodes/pve1/qemu",
            &[("vmid", "101"), ("unique", "1")],
            "unique",
        ),
        (
            "POST",
            &format!("{vm}/status/shutdown"),
            &[("timeout", "-1")],
            "timeout",
        ),
        (
            "POST",
            &format!("{vm}/status/shutdown"),
            &[("forceStop", "no")],
            "forceStop",
        ),
        (
            "POST",
            &format!("{vm}/config"),
            &[("digest", &"a".repeat(41))],
            "digest",
        ),
        (
            "GET",
            "access/permissions",
            &[("userid", "nobody")],
            "userid",
        ),
        ("GET", "access/permissions", &[("userid", "a@pve!tok")], ""),
    ] {
        assert_eq!(faults(method, path, list), want, "{method} {path} {list:?}");
    }
}
