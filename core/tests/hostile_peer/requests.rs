//! A driver that breaks the rules, against the agent.

use crate::peer::*;
use rblocksync::agent::{serve, NoService};
use rblocksync::error::{Kind, Result};
use rblocksync::stop::Stop;
use rblocksync::wire::Frame;

fn agent(script: impl FnOnce(&mut Peer) + Send + 'static) -> Result<()> {
    against(script, |end| {
        let input = end.try_clone().unwrap();
        serve(
            "agent",
            input.into(),
            end.into(),
            None,
            Stop::new(),
            &mut NoService,
        )
    })
}

/// The agent's answer to a request.
fn ask(p: &mut Peer, json: &[u8]) -> String {
    p.send(Frame::Request(json.to_vec()));
    match p.receive() {
        Frame::Reply(json) => String::from_utf8(json).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_requests_are_answered_and_the_agent_goes_on() {
    agent(|p| {
        p.hello();
        for (request, words) in [
            (&b"{"[..], "unknown form"),
            (b"\xff\xfe", "unknown form"),
            (b"{\"block\":{\"format-the-disk\":[1]}}", "unknown form"),
            (b"{\"block\":\"commit\"}", "no image is open"),
            (b"{\"block\":{\"resize\":7}}", "no image is open"),
            (b"{\"block\":{\"open-source\":{\"path\":[],\"direct\":false}}}", "empty or holds a NUL"),
            (b"{\"block\":{\"open-source\":{\"path\":[47,0],\"direct\":false}}}", "empty or holds a NUL"),
            (b"{\"block\":{\"open-source\":{\"path\":[47],\"direct\":false}}}", "a directory"),
            (b"{\"block\":{\"open-source\":{\"path\":[47,110,111],\"direct\":false}}}", "/no"),
            (
                b"{\"block\":{\"sync\":[\"source\",{\"geometry\":{\"size\":1,\"leaf_bytes\":7},\
                  \"hash\":\"blake3\",\"dry_run\":false,\"verify\":false,\"bytes_per_s_max\":null,\"leaf_key\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],\"compress\":\"auto\",\"threads\":null}]}}",
                "unknown form: a leaf of 7 bytes",
            ),
            (
                b"{\"block\":{\"sync\":[\"source\",{\"geometry\":{\"size\":1,\"leaf_bytes\":4096},\
                  \"hash\":\"blake3\",\"dry_run\":false,\"verify\":false,\"bytes_per_s_max\":null,\"leaf_key\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],\"compress\":\"auto\",\"threads\":null}]}}",
                "nothing is open",
            ),
            (b"{\"host\":{\"x\":1}}", "only serves images"),
        ] {
            let answer = ask(p, request);
            assert!(
                answer.contains("failed") && answer.contains(words),
                "{}: {answer}",
                String::from_utf8_lossy(request)
            );
        }
        p.close();
    })
    .unwrap();
}

#[test]
fn frames_that_are_no_requests_end_the_agent_with_a_report() {
    let result = agent(|p| {
        p.hello();
        p.send(Frame::Same(1));
        let report = p.report();
        assert!(report.contains("driver sent Same out of turn"), "{report}");
    });
    refused(result, Kind::Protocol, "driver sent Same out of turn");
}

#[test]
fn an_oversized_request_is_refused_without_being_read() {
    let result = agent(|p| {
        p.hello();
        p.send_bytes(&(64u32 << 20).to_le_bytes());
    });
    refused(result, Kind::Protocol, "a frame of 67108864 bytes");
}

/// JSON that nests without end, or that is many small things: refused or answered, in bounded memory.
#[test]
fn requests_that_are_bombs_are_answered() {
    let name = "requests::requests_that_are_bombs_are_answered";
    within_memory(name, 320 << 20, || {
        agent(|p| {
            p.hello();
            let deep = "[".repeat(1 << 20);
            let wide = format!("[{}0]", "0,".repeat(1 << 20));
            for (json, words) in [
                (format!("{{\"host\":{deep}"), "unknown form"),
                (format!("{{\"block\":{deep}"), "unknown form"),
                (format!("{{\"host\":{wide}}}"), "only serves images"),
                (
                    format!(
                        "{{\"block\":{{\"open-source\":{{\"path\":{wide},\"direct\":false}}}}}}"
                    ),
                    "empty or holds a NUL",
                ),
            ] {
                let answer = ask(p, json.as_bytes());
                assert!(answer.contains(words), "{answer}");
            }
            p.close();
        })
        .unwrap();
    });
}
