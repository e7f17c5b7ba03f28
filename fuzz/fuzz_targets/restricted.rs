//! What a driver asks sshd for under a policy, and the policy itself: the first line is the command. What is taken holds nothing
//! that means something to a shell, and says the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::agent::restrict::{parse_command, Asked, Pattern, Policy};
use std::path::Component;

fuzz_target!(|text: &str| {
    let (command, rest) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(asked) = parse_command("pvesync", command) {
        let again = match asked {
            Asked::Id => return,
            Asked::Serve => "pvesync agent".to_owned(),
            Asked::Lanes(token) => format!("pvesync agent --lanes {token}"),
            Asked::Join(token, number) => format!("pvesync agent --join {token} {number}"),
            Asked::Pour(path) => {
                assert!(
                    path.is_absolute() && !path.components().any(|c| c == Component::ParentDir)
                );
                format!("pvesync agent --pour {}", path.display())
            }
        };
        assert_eq!(parse_command("pvesync", &again).ok(), Some(asked));
        assert!(command
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_=/,.+ ".contains(&b)));
    }
    if let Ok(pattern) = Pattern::new(command) {
        // With one pattern for all the name is matched in bounded time.
        let _ = pattern.matches(rest.as_bytes());
    }
    if let Ok(policy) = Policy::parse(rest) {
        assert!(!policy.roles || policy.access.overwrites());
        let _ = policy.allows_vm(command) | policy.allows_storage(command);
    }
});
