//! What a VM's configuration calls otherwise on the host that keeps its replica: networks and the kind of processor.
//!
//! Like the map of storages it is given with a sync, kept with the replica until it is told otherwise, and turned round
//! when the VM changes sides.

use serde::{Deserialize, Serialize};

/// What a network of libvirt's is named with in a map of networks, to tell it from a bridge of the same name:
/// `network:default`.
pub const NETWORK: &str = "network:";

/// Pairs of a name on the source and the name on the target.
pub type NameMap = Vec<(String, String)>;

/// What is called otherwise on the target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maps {
    /// Networks that network cards are attached to: bridges by their names, networks of libvirt's behind [`NETWORK`].
    #[serde(default)]
    pub networks: NameMap,
    /// Kinds of processors.
    #[serde(default)]
    pub cpus: NameMap,
}

impl Maps {
    /// Whether nothing is called otherwise.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.cpus.is_empty()
    }

    /// What is asked for now, and of what was `known` before what that leaves open. A VM has one kind of processor, so
    /// naming one leaves none open.
    pub fn settled(&self, known: &Maps) -> Maps {
        Maps {
            networks: with_known(&self.networks, &known.networks),
            cpus: match self.cpus.is_empty() {
                true => known.cpus.clone(),
                false => self.cpus.clone(),
            },
        }
    }

    /// The maps of the way back, and what of them cannot be told.
    pub fn inverse(&self) -> (Maps, Vec<String>) {
        let (networks, mut lost) = inverse(&self.networks);
        let (cpus, more) = inverse(&self.cpus);
        lost.extend(more);
        (Maps { networks, cpus }, lost)
    }
}

/// What `name` is called on the other side, if it is called otherwise or was said to be the same.
pub fn mapped<'a>(map: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = map.iter().find(|(from, _)| from == name);
    found.map(|(_, to)| to.as_str())
}

/// What is asked for now, and what was known before and is not asked for otherwise.
pub(super) fn with_known(asked: &[(String, String)], known: &[(String, String)]) -> NameMap {
    let mut settled = asked.to_vec();
    for (from, to) in known {
        if mapped(asked, from).is_none() {
            settled.push((from.clone(), to.clone()));
        }
    }
    settled
}

/// The map the other way round. A name that stands for several is left out, and told.
pub fn inverse(map: &[(String, String)]) -> (NameMap, Vec<String>) {
    let (mut back, mut lost) = (NameMap::new(), Vec::new());
    for (from, to) in map {
        let others: Vec<&str> = map
            .iter()
            .filter(|(_, other)| other == to)
            .map(|(from, _)| from.as_str())
            .collect();
        if others.len() == 1 {
            back.push((to.clone(), from.clone()));
        } else if others.first() == Some(&from.as_str()) {
            lost.push(format!(
                "{to} stands for {}, so the way back leaves it as it is",
                others.join(" and ")
            ));
        }
    }
    (back, lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> NameMap {
        pairs
            .iter()
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect()
    }

    #[test]
    fn what_stands_for_one_is_turned_round_and_the_rest_is_told() {
        let there = map(&[("a", "x"), ("b", "y"), ("c", "y"), ("d", "d")]);
        let (back, lost) = inverse(&there);
        assert_eq!(back, map(&[("x", "a"), ("d", "d")]));
        assert_eq!(
            lost,
            ["y stands for b and c, so the way back leaves it as it is"]
        );
        assert_eq!(inverse(&back).0, map(&[("a", "x"), ("d", "d")]));
    }

    #[test]
    fn a_network_and_a_bridge_of_one_name_come_back_as_what_they_were() {
        let there = Maps {
            networks: map(&[("network:lan", "network:office"), ("lan", "office")]),
            ..Maps::default()
        };
        let (back, lost) = there.inverse();
        assert_eq!(
            back.networks,
            map(&[("network:office", "network:lan"), ("office", "lan")])
        );
        assert_eq!(lost, Vec::<String>::new());
    }

    #[test]
    fn what_was_known_stays_until_it_is_told_otherwise() {
        let known = Maps {
            networks: map(&[("vmbr0", "vmbr1"), ("vmbr2", "vmbr3")]),
            cpus: map(&[("host", "kvm64")]),
        };
        let nothing = Maps::default();
        assert_eq!(nothing.settled(&known), known);
        let asked = Maps {
            networks: map(&[("vmbr0", "vmbr0")]),
            cpus: map(&[("kvm64", "qemu64")]),
        };
        assert_eq!(
            asked.settled(&known),
            Maps {
                networks: map(&[("vmbr0", "vmbr0"), ("vmbr2", "vmbr3")]),
                cpus: map(&[("kvm64", "qemu64")]),
            }
        );
    }
}
