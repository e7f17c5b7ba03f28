use super::*;

fn row(vm: &str, outcome: Outcome) -> Row {
    let member = Member {
        vm: vm.into(),
        host: "host2".into(),
        age_s: Some(1000),
        rpo_s: Some(900),
        args: Vec::new(),
    };
    Row::of(member, outcome, Duration::from_secs(60))
}

fn done() -> Outcome {
    Outcome {
        generation: Some("rbs7".into()),
        changed: 5 << 20,
        wire: 1 << 20,
        took: Duration::from_secs(3),
        ..Outcome::of(Ending::Done)
    }
}

#[test]
fn the_exit_code_tells_some_from_all() {
    let code = |outcomes: Vec<Outcome>| {
        let rows: Vec<Row> = outcomes.into_iter().map(|o| row("101", o)).collect();
        judge(&rows, &Stop::new())
    };
    let failed = |code| Outcome::failed(code, "why");
    assert_eq!(code(vec![done(), done()]), 0);
    assert_eq!(code(vec![done(), failed(3)]), EXIT_SOME_FAILED);
    assert_eq!(code(vec![failed(3), failed(3)]), 3);
    assert_eq!(code(vec![failed(3), failed(4)]), 1);
    assert_eq!(code(vec![failed(143)]), 1);
    assert_eq!(code(vec![Outcome::of(Ending::NotStarted)]), 1);
    let stop = Stop::new();
    stop.stop_by_signal(15);
    assert_eq!(judge(&[row("101", failed(143))], &stop), 143);
    // The signal came when all was done.
    assert_eq!(judge(&[row("101", done())], &stop), 0);
}

#[test]
fn a_line_tells_what_came_of_a_vm() {
    assert_eq!(
        row("101", done()).text(),
        "  VM 101 to host2: generation rbs7, 5.0 MiB changed, 1.0 MiB on the wire, 3.0 s"
    );
    let mut failed = Outcome::failed(1, "no route");
    failed.notes.push("slow".into());
    assert_eq!(
        row("102", failed).text(),
        "  VM 102 to host2: failed: no route\n    \
         late: its newest generation is 17 min 40 s old, and may be 15 min 00 s\n    note: slow"
    );
    let event = row("102", Outcome::failed(3, "busy")).event();
    assert_eq!(event["state"], "failed");
    assert_eq!((&event["code"], &event["late"]), (&json!(3), &json!(true)));
}

#[test]
fn an_rpo_is_not_nothing() {
    assert_eq!(parse_rpo("15m").unwrap().as_secs(), 900);
    assert!(parse_rpo("0s").is_err());
}
