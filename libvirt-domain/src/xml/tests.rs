#![allow(clippy::unwrap_used)]

use super::{Element, DEPTH_MAX, DOCUMENT_BYTES_MAX};
use proptest::prelude::*;
use rblocksync::error::Kind;

fn parse(text: &str) -> Element {
    Element::parse("a test", text).unwrap()
}

fn refused(text: &str, why: &str) {
    let error = Element::parse("a test", text).unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(
        error.message().contains(why),
        "{why:?} is not in {:?}",
        error.message()
    );
}

#[test]
fn what_is_not_understood_is_kept() {
    let text = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>a &amp; b</name>
  <odd x='1&lt;2'/>
  <qemu:commandline>
    <qemu:arg value='-foo'/>
  </qemu:commandline>
</domain>
";
    let domain = parse(text);
    assert_eq!(domain.at(&["name"]).unwrap().text(), "a & b");
    assert_eq!(domain.at(&["odd"]).unwrap().attribute("x"), Some("1<2"));
    assert_eq!(domain.to_string(), text);
}

#[test]
fn text_is_put_together_from_its_pieces() {
    let all = parse("<a>1 &lt; <!-- no -->2<![CDATA[ & 3]]>&#x41;</a>");
    assert_eq!(all.text(), "1 < 2 & 3A");
}

#[test]
fn comments_and_instructions_are_dropped() {
    let text = "<?xml version='1.0'?><!-- a --><a><?b c?><d/></a><!-- e -->";
    assert_eq!(parse(text).to_string(), "<a>\n  <d/>\n</a>\n");
}

#[test]
fn nothing_is_fetched_and_nothing_grows() {
    refused(
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        "it has a document type",
    );
    refused("<a>&b;</a>", "it uses the entity \"b\"");
    refused("<a b='&c;'/>", "c");
    refused(&"<a>".repeat(DEPTH_MAX + 1), "nested deeper");
    let long = format!("<a>{}</a>", " ".repeat(DOCUMENT_BYTES_MAX));
    refused(&long, "more than");
}

#[test]
fn damaged_documents_are_refused() {
    refused("", "there is no element");
    refused("virsh: command not found", "outside of any element");
    refused("<a>", "<a> does not end");
    refused("<a></b>", "b");
    refused("<a/><b/>", "<b> is a second root");
    refused("<a b=1/>", "");
    refused("<a b='1' b='2'/>", "");
    refused("<a/>text", "outside of any element");
}

#[test]
fn attributes_and_children_are_changed_in_place() {
    let mut disk = parse("<disk type='file'><source file='/a'/><target dev='vda'/></disk>");
    disk.set("type", "block");
    disk.child_mut("source").unwrap().unset("file");
    disk.child_mut("source").unwrap().set("dev", "/dev/b");
    disk.retain(|e| e.name != "target");
    disk.push(Element::new("serial").saying("x"));
    let expected = "<disk type='block'>\n  <source dev='/dev/b'/>\n  <serial>x</serial>\n</disk>\n";
    assert_eq!(disk.to_string(), expected);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(value in "[ -~\t\n\r\u{e9}\u{4e2d}]{0,20}", text in "[!-~]( ?[!-~\u{e9}\n\r]){0,9}") {
        let element = Element::new("a").holding(Element::new("b").with("c", value)).holding(Element::new("d").saying(text));
        prop_assert_eq!(parse(&element.to_string()), element);
    }

    #[test]
    fn nothing_makes_it_panic(text in "[<>/a-c='\"&;!\\[\\]?#x -]{0,60}") {
        let _ = Element::parse("a test", &text);
    }
}
