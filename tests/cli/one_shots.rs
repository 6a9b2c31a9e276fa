//! One-shot commands: thousands of them must use up no quota of a bot. `scripts/one-shots.sh` runs ten thousand of them; here it
//! runs each kind. `doctor` opens the gateway as `watch` does, but only until its Hello.

use std::process::Command;

#[test]
fn one_shot_commands_begin_no_gateway_session() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/one-shots.sh");
    let run = Command::new("bash")
        .args([script, "25", "--binary", env!("CARGO_BIN_EXE_bitbrat")])
        .output()
        .unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(run.status.success(), "{said}{complained}");
    assert!(said.contains(" 0 Identifies"), "{said}");
    assert!(said.contains("watch --once: "), "{said}");
}
