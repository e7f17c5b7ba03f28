//! A domain's definition: what is read of it, and what of it is changed.

use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use uuid::Uuid;

/// A domain's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    root: Element,
}

impl Domain {
    /// Reads a definition.
    pub fn parse(text: &str) -> Result<Domain> {
        let root = Element::parse("the definition of a domain", text)?;
        if root.name != "domain" {
            return Err(Error::new(
                Kind::Protocol,
                format!("<{}> is not the definition of a domain", root.name),
            ));
        }
        let domain = Domain { root };
        check_name(&domain.name())?;
        Ok(domain)
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.root
            .child("name")
            .map(Element::text)
            .unwrap_or_default()
    }

    /// Its UUID, if it has one that can be read.
    pub fn uuid(&self) -> Option<Uuid> {
        let text = self.root.child("uuid")?.text();
        Uuid::parse_str(&text).ok()
    }

    /// All of it.
    pub fn root(&self) -> &Element {
        &self.root
    }

    /// The same, to be changed.
    pub fn root_mut(&mut self) -> &mut Element {
        &mut self.root
    }

    /// Its devices.
    pub fn devices(&self) -> impl Iterator<Item = &Element> {
        self.root
            .child("devices")
            .into_iter()
            .flat_map(Element::elements)
    }

    /// The element that holds them, to be changed.
    pub fn devices_mut(&mut self) -> Option<&mut Element> {
        self.root.child_mut("devices")
    }

    /// Its disks, drives for removable media too.
    pub fn disks(&self) -> impl Iterator<Item = &Element> {
        self.devices().filter(|device| device.name == "disk")
    }

    /// The same, to be changed.
    pub fn disks_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        let devices = self.devices_mut().into_iter();
        devices
            .flat_map(Element::elements_mut)
            .filter(|device| device.name == "disk")
    }

    /// Whether it has a channel to a guest agent.
    pub fn has_agent(&self) -> bool {
        self.devices().any(|device| {
            device.name == "channel"
                && device
                    .child("target")
                    .is_some_and(|t| t.attribute("name") == Some("org.qemu.guest_agent.0"))
        })
    }

    /// Where its firmware keeps its variables, if that is a file of this host.
    pub fn nvram(&self) -> Option<String> {
        let nvram = self.root.at(&["os", "nvram"])?;
        let path = match nvram.child("source") {
            Some(source) => source
                .attribute("file")
                .or(source.attribute("dev"))?
                .to_owned(),
            None => nvram.text(),
        };
        path.starts_with('/').then_some(path)
    }

    /// The format of that file.
    pub fn nvram_format(&self) -> &str {
        let nvram = self.root.at(&["os", "nvram"]);
        nvram.and_then(|n| n.attribute("format")).unwrap_or("raw")
    }

    /// Has its firmware keep its variables in this file.
    pub fn set_nvram(&mut self, path: &str) {
        let Some(nvram) = self
            .root
            .child_mut("os")
            .and_then(|os| os.child_mut("nvram"))
        else {
            return;
        };
        match nvram.child_mut("source") {
            Some(source) => {
                source.attributes.clear();
                source.set("file", path);
                nvram.set("type", "file");
            }
            None => nvram.set_text(path),
        }
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.root.fmt(f)
    }
}

/// The key of a disk: the name that its device has in the definition.
pub fn disk_key(disk: &Element) -> &str {
    disk.child("target")
        .and_then(|t| t.attribute("dev"))
        .unwrap_or_default()
}

/// Refuses a name that cannot be that of a file: state is kept under it.
pub fn check_name(name: &str) -> Result<()> {
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it means a directory",
        _ if name.len() > 200 => "it is too long",
        _ if name.contains('/') => "there is a slash in it",
        _ if name.chars().any(char::is_control) => "there are control characters in it",
        _ => return Ok(()),
    };
    Err(Error::new(
        Kind::Usage,
        format!(
            "{:?} cannot be a domain's name: {why}",
            name.escape_debug().to_string()
        ),
    ))
}
