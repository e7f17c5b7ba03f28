//! What a form has a word for is not lost, whatever the VM.

use super::any::{guest, Of};
use super::schema::Schema;
use super::{from_libvirt, from_pve, in_order, plain, to_libvirt, to_pve};
use proptest::prelude::*;
use rblocksync::guest::Left;

fn names(left: &[Left]) -> Vec<String> {
    left.iter().map(Left::to_string).collect()
}

/// On this board cards have other places.
fn but_for_places(left: &[Left]) -> Vec<String> {
    let mut names = names(left);
    names.retain(|name| !name.starts_with("network cards: "));
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn proxmox_keeps_what_it_has_words_for(guest in guest(Of::Pve)) {
        let written = to_pve(&guest);
        prop_assert_eq!(names(&written.left), Vec::<String>::new(), "{}", written.text);
        let read = from_pve(&written.text);
        prop_assert_eq!(names(&read.unknown), Vec::<String>::new(), "{}", written.text);
        prop_assert_eq!(plain(read), plain(guest), "{}", written.text);
    }

    #[test]
    fn libvirt_keeps_what_it_has_words_for(guest in guest(Of::Libvirt)) {
        let guest = in_order(guest);
        let written = to_libvirt(&guest);
        prop_assert_eq!(but_for_places(&written.left), Vec::<String>::new());
        let read = from_libvirt(&written);
        prop_assert_eq!(names(&read.unknown), Vec::<String>::new(), "{}", written.domain);
        prop_assert_eq!(plain(read), plain(guest), "{}", written.domain);
    }

    #[test]
    fn there_and_back_nothing_is_lost_that_both_have_words_for(guest in guest(Of::Both)) {
        let there = to_libvirt(&from_pve(&to_pve(&guest).text));
        prop_assert_eq!(but_for_places(&there.left), Vec::<String>::new());
        let back = to_pve(&from_libvirt(&there));
        prop_assert_eq!(names(&back.left), Vec::<String>::new(), "{}", there.domain);
        prop_assert_eq!(plain(from_pve(&back.text)), plain(guest), "{}", there.domain);
    }

    #[test]
    fn proxmox_takes_what_is_written(guest in guest(Of::Libvirt)) {
        let text = to_pve(&guest).text;
        let mut params = vec![("vmid".to_owned(), "101".to_owned())];
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        params.extend(lines.map(|line| {
            let (key, value) = line.split_once(": ").unwrap();
            (key.to_owned(), value.to_owned())
        }));
        if let Err(fault) = Schema::load().check("POST", "/nodes/pve1/qemu", &params) {
            prop_assert!(false, "{fault:?} in\n{text}");
        }
    }

    #[test]
    fn whatever_is_left_is_told(guest in guest(Of::Pve)) {
        // Each of these has no counterpart, and none goes by unsaid.
        let written = to_libvirt(&guest);
        let told = names(&written.left).join("\n");
        for nic in guest.nics.iter().filter(|nic| nic.firewall) {
            let name = format!("{} firewall", nic.key);
            prop_assert!(told.contains(&name), "{name} in {told}");
        }
        prop_assert_eq!(guest.tpm.is_some(), told.contains("TPM"));
    }
}
