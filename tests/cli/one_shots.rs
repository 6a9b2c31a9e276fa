//! Commands that look once, thousands of which must cost a bot nothing that is rationed. `scripts/one-shots.sh` runs ten thousand
//! of them; here it runs each kind.

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
    assert!(said.contains(" 0 gateway connections, 0 Identifies"), "{said}");
    assert!(said.contains("watch --once: "), "{said}");
}
