//! What packages and containers are made of: where no container engine is, only this checks the files of `contrib/compose` and
//! the Containerfile.

use std::path::Path;

use serde_norway::Value;

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Parses a YAML file, with `<<` resolved.
fn yaml(path: &str) -> Value {
    let mut value: Value = serde_norway::from_str(&text(path)).unwrap();
    value.apply_merge().unwrap();
    value
}

fn services() -> Vec<(String, Value)> {
    let file = yaml("contrib/compose/compose.yaml");
    let services = file["services"].as_mapping().unwrap().clone();
    let named = services
        .into_iter()
        .map(|(name, service)| (name.as_str().unwrap().to_owned(), service));
    named.collect()
}

/// Returns the texts of a list; none when there is no list.
fn words(list: &Value) -> Vec<&str> {
    let list = list.as_sequence().map_or(&[] as &[Value], Vec::as_slice);
    list.iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn composed_services_are_confined_and_on_loopback_only() {
    let services = services();
    assert!(services.len() >= 4);
    for (name, service) in services {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(words(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            words(&service["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
        let user = service["user"].as_str().unwrap();
        assert!(
            !user.starts_with('0') && !user.starts_with("root"),
            "{name}: {user}"
        );
        for port in words(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
        let image = service["image"].as_str().unwrap();
        let is_ours = image.starts_with("bitbrat:");
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(
            is_ours || tag.is_some_and(|tag| tag != "latest"),
            "{name}: {image}"
        );
        // Our image has its own, and what ends by itself needs none.
        if !is_ours && service["restart"] != "no" {
            assert_eq!(words(&service["healthcheck"]["test"])[0], "CMD", "{name}");
        }
    }
}

#[test]
fn composed_services_find_their_volumes_and_each_other() {
    let services = services();
    let names: Vec<&str> = services.iter().map(|(name, _)| &name[..]).collect();
    let file = yaml("contrib/compose/compose.yaml");
    for (name, service) in &services {
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            match source.strip_prefix("./") {
                // Secrets are the operator's.
                Some(path) if path.starts_with("credentials") => {}
                Some(path) => drop(text(&format!("contrib/compose/{path}"))),
                None if source.starts_with("../") => drop(text(&format!("contrib/compose/{source}"))),
                None => assert!(file["volumes"].get(source).is_some(), "{name}: {source}"),
            }
        }
        for (other, _) in service["depends_on"].as_mapping().into_iter().flatten() {
            assert!(names.contains(&other.as_str().unwrap()), "{name}: {other:?}");
        }
    }
    let scraped =
        &yaml("contrib/compose/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"];
    assert_eq!(words(scraped), ["bitbrat:8787"]);
    let mounted = services
        .iter()
        .flat_map(|(_, service)| words(&service["volumes"]));
    let mounted: Vec<String> = mounted
        .filter_map(|volume| Some(volume.split(':').nth(1)?.to_owned()))
        .collect();
    let rules = &yaml("contrib/compose/prometheus.yml")["rule_files"];
    let provider = &yaml("contrib/compose/grafana/dashboards.yml")["providers"][0];
    let dashboards = provider["options"]["path"].as_str().unwrap();
    assert!(
        words(rules)
            .iter()
            .all(|path| mounted.iter().any(|mounted| mounted == path))
    );
    assert!(
        mounted.contains(&format!("{dashboards}/bitbrat.json")),
        "{mounted:?}"
    );
    let source = &yaml("contrib/compose/grafana/datasources.yml")["datasources"][0];
    assert_eq!(
        (&source["type"], &source["url"]),
        (&"prometheus".into(), &"http://prometheus:9090".into())
    );
}

#[test]
fn container_file_needs_no_root_and_has_every_target() {
    let file = text("Containerfile");
    let line = |start: &str| {
        file.lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix(start))
            .unwrap()
    };
    assert_eq!(line("USER "), "10001");
    assert!(
        line("CMD [\"bash\"").ends_with(']'),
        "a health check in exec form"
    );
    // Cargo reads the manifest only where the file of every target is there.
    let manifest: toml_edit::DocumentMut = text("Cargo.toml").parse().unwrap();
    for kind in ["bench", "test"] {
        for target in manifest[kind].as_array_of_tables().unwrap() {
            let folder = if kind == "bench" { "benches" } else { "tests" };
            let stand_in = format!("{folder}/{}.rs", target["name"].as_str().unwrap());
            assert!(file.contains(&stand_in), "{stand_in}");
        }
    }
}
