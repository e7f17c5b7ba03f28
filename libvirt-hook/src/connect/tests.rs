//! libvirt's own driver for tests keeps its domains in this process: real calls, no daemon.

use super::*;

const URI: &str = "test:///default";

#[test]
fn a_domain_is_found_by_name_and_by_uuid() {
    let connection = Connection::open(URI).unwrap();
    let by_name = connection.domain("test").unwrap();
    let by_uuid = connection.domain(&by_name.uuid().to_string()).unwrap();
    assert_eq!(by_uuid.name(), "test");
    assert_eq!(connection.domains().unwrap().len(), 1);
    let missing = connection.domain("web01").unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert!(
        missing.advice().unwrap().contains("virsh list"),
        "{missing}"
    );
    assert!(connection.find("web01").unwrap().is_none());
    assert_eq!(connection.domain("a\0b").unwrap_err().kind(), Kind::Usage);
}

#[test]
fn a_domain_is_suspended_and_resumed() {
    let domain = Connection::open(URI).unwrap().domain("test").unwrap();
    assert_eq!(domain.state().unwrap().state, State::Running);
    domain.suspend().unwrap();
    let paused = domain.state().unwrap();
    assert!(paused.is_paused_by_user(), "{paused}");
    assert_eq!(paused.to_string(), "paused (by a user)");
    domain.resume().unwrap();
    assert_eq!(domain.state().unwrap().state, State::Running);
    assert!(domain.live_xml().unwrap().contains("<name>test</name>"));
    domain.destroy().unwrap();
    assert_eq!(domain.state().unwrap().state, State::Off);
    domain.destroy().unwrap();
}

#[test]
fn a_libvirt_that_is_not_there_is_told_with_advice() {
    let error = Connection::open("qemu+unix:///system?socket=/nonexistent/socket").unwrap_err();
    assert!(error.message().contains("/nonexistent/socket"), "{error}");
    assert!(error.advice().unwrap().contains("libvirtd"), "{error}");
}

#[test]
fn a_call_that_hangs_is_given_up() {
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let error = bounded("wait for", Duration::from_millis(1), move || {
        let _ = blocked.recv();
        Ok(())
    })
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    drop(release);
}
