use super::*;
use crate::host::memory::Memory;
use crate::marks::NAMESPACE;
use uuid::Uuid;

#[test]
fn all_means_those_that_are_domains_of_this_host() {
    let host = Memory::default();
    let define = |name: &str, role: &str| {
        let mark = match role {
            "" => String::new(),
            role => format!(
                "<metadata><r:domain xmlns:r='{NAMESPACE}' role='{role}' pair='{}' id='{}'/></metadata>",
                Uuid::nil(),
                Uuid::nil()
            ),
        };
        let uuid = Uuid::new_v4();
        let xml =
            format!("<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid>{mark}</domain>");
        host.define(&xml).unwrap();
    };
    for (name, role) in [
        ("web01", ""),
        ("db01", "taken-over"),
        ("copy", "replica"),
        ("gone", "retired"),
        ("short", ""),
    ] {
        define(name, role);
    }
    host.change("short", |d| d.persistent = false);
    let chosen = |all: bool, vms: &[&str], without: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let selection = SelectionArgs {
            vms: own(vms),
            all,
            exclude_vm: own(without),
        };
        pick(&selection, &host).unwrap()
    };
    let all = chosen(true, &[], &[]);
    assert_eq!(all.vms, ["db01", "web01"]);
    assert_eq!(
        all.left_out,
        [
            "copy: it is a replica",
            "gone: it has gone to another host",
            "short: it is transient"
        ]
    );
    // What is listed is taken, whether or not it is there. Its own run says what is wrong with it.
    assert_eq!(
        chosen(false, &["nobody", "copy"], &["web01"]).vms,
        ["copy", "nobody"]
    );
    assert_eq!(
        chosen(true, &["nobody"], &["db01"]).vms,
        ["nobody", "web01"]
    );
    assert!(chosen(false, &["web01"], &["web01"]).vms.is_empty());
}

#[test]
fn what_is_no_name_is_a_fault() {
    for (vms, without) in [
        (vec![], vec![]),
        (vec!["a/b"], vec![]),
        (vec!["a"], vec![""]),
    ] {
        let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let selection = SelectionArgs {
            vms: own(vms),
            all: false,
            exclude_vm: own(without),
        };
        selection.check().unwrap_err();
    }
}
