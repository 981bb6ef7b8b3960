//! The command line: what a user types, what is answered, and with which exit code.
//!
//! Every program here is the real one, in a home of its own, against a scratch cluster that is a process as well.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{
    cluster::{config_map, config_maps, create, create_namespace, delete, get, patch, secrets},
    shell::{Scratch, User, make_bucket},
};
use serde_json::{Value, json};
use stillpoint_test_support::require;

/// The S3 server of the tests.
const S3: &str = "STILLPOINT_TEST_S3";

/// A user with a key, a repository, and a cluster with a small shop.
async fn shop(user: &User) -> Scratch {
    user.prints(0, &["key", "generate"]);
    user.prints(0, &["repo", "init"]);
    let cluster = Scratch::start(user, "kubeconfig").await;
    create_namespace(&cluster.client, "shop").await;
    create(&cluster.client, &config_maps("shop"), &config_map("web", "blue")).await;
    create(&cluster.client, &secrets("shop"), &json!({"metadata": {"name": "db"}, "stringData": {"p": "hunter2"}}))
        .await;
    cluster
}

/// The whole way, from the first backup to the last command: on whatever the user's repository is.
async fn the_whole_way(user: &User) {
    let cluster = shop(user).await;
    let on = ["--kubeconfig", &cluster.kubeconfig];
    let create_args = |name| [&["backup", "create", name, "--include-namespaces", "shop"][..], &on].concat();
    let taken = user.reads(&[&create_args("shop-1")[..], &["-o", "json"]].concat());
    assert_eq!((&taken["outcome"], &taken["attempts"]), (&json!("complete"), &json!(1)));

    patch(&cluster.client, &format!("{}/web", config_maps("shop")), &json!({"data": {"text": "green"}})).await;
    assert!(user.prints(0, &create_args("shop-2")).contains("next: stillpoint verify shop-2"));
    let listed = user.reads(&["backup", "get", "-o", "json"]);
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!((names, &listed[0]["tested"]), (vec!["shop-1", "shop-2"], &json!("Untested")));
    assert_eq!(listed[0]["root"], taken["root"]);

    let web: Value = user.reads(&["backup", "cat", "shop-1", "configmaps/shop/web", "-o", "json"]);
    assert_eq!((&web["kind"], &web["data"]["text"]), (&json!("ConfigMap"), &json!("blue")));
    let differs = user.prints(0, &["backup", "diff", "shop-1", "shop-2"]);
    assert!(differs.contains("~ configmaps.core/shop/web") && differs.contains("green"), "{differs}");
    delete(&cluster.client, &format!("{}/db", secrets("shop"))).await;
    let live = user.prints(0, &[&["backup", "diff", "shop-2", "--live"][..], &on].concat());
    assert_eq!(live.trim(), "- secrets.core/shop/db");

    let verified = user.prints(0, &["verify", "shop-2", "--report", &user.path("report.html")]);
    assert!(verified.contains("backup shop-2: Proven on embedded"), "{verified}");
    assert!(std::fs::read_to_string(user.path("report.html")).unwrap().contains("shop-2"));
    let table = user.prints(0, &["backup", "get"]);
    let [_, first, second] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    assert!(first.contains("Untested") && second.contains("Proven") && second.contains("trusted signer"), "{table}");
    assert!(user.prints(0, &["backup", "describe", "shop-2", "--details"]).contains("secrets.core"));

    assert!(user.prints(0, &["backup", "delete", "shop-1", "--yes"]).contains("deleted backup shop-1"));
    assert_eq!(user.reads(&["backup", "get", "-o", "json"]).as_array().unwrap().len(), 1);
    user.is_refused(1, &["no backup \"shop-1\""], &["backup", "describe", "shop-1"]);
    assert_eq!(cluster.interrupt(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_takes_a_backup_the_whole_way() {
    the_whole_way(&User::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_takes_a_backup_the_whole_way() {
    let Some(endpoint) = require::env(S3) else { return };
    let repository = format!("s3://{}/some/prefix", make_bucket(&endpoint));
    the_whole_way(&User::new().with_s3(&endpoint, &repository)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_restored_under_another_name_into_another_cluster() {
    let user = User::new();
    let source = shop(&user).await;
    let create_args =
        ["backup", "create", "shop-1", "--include-namespaces", "shop", "--kubeconfig", &source.kubeconfig];
    user.prints(0, &create_args);
    let target = Scratch::start(&user, "target").await;
    let restore = ["restore", "create", "--from-backup", "shop-1", "--kubeconfig", &target.kubeconfig];
    let restore = [&restore[..], &["--namespace-mappings", "shop:shop2"]].concat();
    let namespaces = async || {
        let listed = get(&target.client, "/api/v1/namespaces").await;
        let names = listed["items"].as_array().unwrap().iter();
        names.map(|namespace| namespace["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    let before = namespaces().await;
    let plan = user.prints(0, &[&restore[..], &["--dry-run"]].concat());
    assert!(plan.contains("nothing is written") && plan.contains("would be created"), "{plan}");
    let plan = user.reads(&[&restore[..], &["--dry-run", "-o", "json"]].concat());
    assert!(plan.to_string().contains("configmaps.core/shop2/web"), "{plan}");
    assert_eq!(namespaces().await, before, "a dry run wrote");

    let restored = user.reads(&[&restore[..], &["-o", "json"]].concat());
    assert!(restored["created"].as_u64().unwrap() >= 3, "{restored}");
    assert!(namespaces().await.contains(&"shop2".to_owned()) && !namespaces().await.contains(&"shop".to_owned()));
    let web = get(&target.client, &format!("{}/web", config_maps("shop2"))).await;
    assert_eq!((&web["data"]["text"], &web["metadata"]["namespace"]), (&json!("blue"), &json!("shop2")));
    let again = user.reads(&[&restore[..], &["-o", "json"]].concat());
    assert_eq!(again["created"], 0, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_repository_refuses_is_one_sentence_and_changes_nothing() {
    let user = User::new();
    user.is_refused(1, &["there is no repository at", "init"], &["backup", "get"]);
    assert!(user.files("repository").is_empty(), "{:?}", user.files("repository"));
    let cluster = shop(&user).await;
    let on = ["--kubeconfig", &cluster.kubeconfig];
    let create_args = [&["backup", "create", "shop-1", "--include-namespaces", "shop"][..], &on].concat();
    user.prints(0, &create_args);
    let before = user.files("");

    user.is_refused(1, &["there is a repository", "already"], &["repo", "init"]);
    user.is_refused(1, &["\"shop-1\" exists already"], &create_args);
    user.is_refused(1, &["cannot name a backup"], &[&["backup", "create", "Shop_1"][..], &on].concat());
    user.is_refused(1, &["no backup \"shop-9\""], &["verify", "shop-9"]);
    user.is_refused(1, &["holds no secrets.core/shop/none"], &["backup", "cat", "shop-1", "secrets/shop/none"]);
    user.is_refused(1, &["a key is never replaced"], &["key", "generate"]);
    user.is_refused(2, &["names no object"], &["backup", "cat", "shop-1", "web"]);
    let unattended = user.runs(&["backup", "delete", "shop-1"]).code(2);
    assert!(common::shell::text(&unattended.get_output().stderr).contains("--yes"));
    let user = user.with("STILLPOINT_PASSWORD", "guessed");
    user.is_refused(1, &["password opens none"], &["backup", "get"]);
    user.is_refused(1, &["password opens none"], &[&["backup", "create", "shop-2"][..], &on].concat());
    let user = user.with("STILLPOINT_PASSWORD", "");
    user.is_refused(2, &["no password", "STILLPOINT_PASSWORD"], &["backup", "get"]);
    let user = user.with("STILLPOINT_PASSWORD_FILE", "absent");
    user.is_refused(1, &["password file absent"], &["backup", "get"]);
    assert_eq!(user.files(""), before, "a refused command changed a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_a_backup_is_refused_unless_it_is_said_to_be_unsigned() {
    let user = User::new();
    let cluster = shop(&user).await;
    std::fs::remove_dir_all(user.home.path().join(".config")).unwrap();
    let create_args =
        ["backup", "create", "shop-1", "--include-namespaces", "shop", "--kubeconfig", &cluster.kubeconfig];
    let before = user.files("repository");
    user.is_refused(1, &["no key", "stillpoint key generate", "--unsigned"], &create_args);
    assert_eq!(user.files("repository"), before);

    assert!(user.prints(0, &[&create_args[..], &["--unsigned"]].concat()).contains("unsigned"));
    assert!(user.prints(0, &["backup", "get"]).contains("unsigned"));
    assert!(user.prints(3, &["verify", "shop-1"]).contains("unsigned"));
    let target = Scratch::start(&user, "target").await;
    let restore = ["restore", "create", "--from-backup", "shop-1", "--kubeconfig", &target.kubeconfig];
    user.is_refused(1, &["unsigned"], &restore);
    user.prints(0, &[&restore[..], &["--accept-untrusted"]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_degraded_backup_says_so_by_its_exit_code_and_by_name() {
    let user = User::new();
    let cluster = shop(&user).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
    create(&cluster.client, claims, &json!({"metadata": {"name": "data"}, "spec": spec})).await;
    let create_args = |name, flag| ["backup", "create", name, flag, "--kubeconfig", &cluster.kubeconfig];
    let printed = user.prints(3, &create_args("degraded", "--include-namespaces=shop"));
    assert!(printed.contains("persistentvolumeclaims.core/shop/data"), "{printed}");
    user.prints(0, &create_args("meant", "--no-volumes"));
    user.is_refused(1, &["--strict", "persistentvolumeclaims.core/shop/data"], &create_args("strict", "--strict"));
    assert!(user.files("repository/locks").is_empty(), "a refused backup left its lock");
    assert!(user.prints(3, &["verify", "degraded"]).contains("degraded"));
    let names = user.reads(&["backup", "get", "-o", "json"]);
    assert_eq!(names.as_array().unwrap().len(), 2, "{names}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_used_is_named_and_nothing_is_begun() {
    let user = User::new();
    user.prints(0, &["key", "generate"]);
    user.prints(0, &["repo", "init"]);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "dead", "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "dead", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "dead", "context": {"cluster": "dead", "user": "u"}}],
    });
    std::fs::write(user.path("dead"), config.to_string()).unwrap();
    let before = user.files("repository");
    user.is_refused(1, &["cannot be reached"], &["backup", "create", "a", "--kubeconfig", "dead"]);
    user.is_refused(1, &["kubeconfig absent"], &["backup", "create", "a", "--kubeconfig", "absent"]);
    user.is_refused(1, &["nowhere"], &["backup", "create", "a", "--kubeconfig", "dead", "--context", "nowhere"]);
    user.is_refused(1, &["no kubeconfig", "stillpoint demo"], &["backup", "create", "a"]);
    assert_eq!(user.files("repository"), before);
}

#[test]
fn a_store_that_cannot_be_reached_is_named_while_the_user_looks_on() {
    let user = User::new().with_s3("http://127.0.0.1:1", "s3://bucket/prefix");
    let started = std::time::Instant::now();
    user.is_refused(1, &["s3://bucket/prefix", "cannot be reached"], &["backup", "get"]);
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    let user = user.with("STILLPOINT_REPO", "ftp://somewhere");
    user.is_refused(2, &["ftp://somewhere is no repository address"], &["backup", "get"]);
}

#[test]
fn an_absent_bucket_is_named() {
    let Some(endpoint) = require::env(S3) else { return };
    let user = User::new().with_s3(&endpoint, "s3://nobody-made-this/prefix");
    for arguments in [&["repo", "init"][..], &["backup", "get"]] {
        user.is_refused(1, &["the bucket of s3://nobody-made-this/prefix does not exist"], arguments);
    }
}

/// Every command that has no subcommands, found by asking for help.
fn commands(user: &User, path: &[&str]) -> Vec<Vec<String>> {
    let help = user.prints(0, &[path, &["--help"]].concat());
    let Some((_, listed)) = help.split_once("\nCommands:\n") else {
        return vec![path.iter().map(|&name| name.to_owned()).collect()];
    };
    let lines = listed.lines().take_while(|line| !line.is_empty());
    // descriptions that go on are indented further
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").flat_map(|name| commands(user, &[path, &[name]].concat())).collect()
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let user = User::new();
    let commands = commands(&user, &[]);
    assert!(commands.len() >= 14, "{commands:?}");
    for command in commands {
        let path: Vec<_> = command.iter().map(String::as_str).collect();
        let help = user.prints(0, &[&path[..], &["--help"]].concat());
        let (_, examples) = help.split_once("\nExample").unwrap_or_else(|| panic!("{path:?} has no example"));
        assert!(examples.contains(&format!("stillpoint {}", path.join(" "))), "{path:?}: {examples}");
    }
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    let user = User::new();
    for arguments in [
        &[][..],
        &["explode"],
        &["backup", "create"],
        &["backup", "create", "a", "--no-such-flag"],
        &["backup", "create", "a", "--unsigned", "--signing-key", "k"],
        &["backup", "diff", "a"],
        &["backup", "diff", "a", "b", "--live"],
        &["backup", "get", "-o", "xml"],
        &["restore", "create", "--from-backup", "a", "--namespace-mappings", "shop"],
        &["verify", "a", "--scratch", "moon"],
        &["completion", "csh"],
    ] {
        user.runs(arguments).code(2).stdout("");
    }
}

#[test]
fn each_shell_has_a_completion() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = user.prints(0, &["completion", shell]);
        assert!(script.contains("stillpoint") && script.contains("restore"), "{shell}: {script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prints_data_prints_it_for_programs_too() {
    let user = User::new();
    let created = user.prints(0, &["repo", "init", "-o", "yaml"]);
    assert!(created.starts_with("repository: ") && created.contains("\nid: "), "{created}");
    user.prints(0, &["key", "generate"]);
    let cluster = Scratch::start(&user, "kubeconfig").await;
    let on = ["--kubeconfig", &cluster.kubeconfig];
    user.reads(&[&["backup", "create", "a", "-o", "json"][..], &on].concat());
    let restore = [&["restore", "create", "--from-backup", "a"][..], &on].concat();
    let commands = [
        &["backup", "get"][..],
        &["backup", "describe", "a"],
        &["backup", "cat", "a", "namespaces/default"],
        &[&["backup", "diff", "a", "--live"][..], &on].concat(),
        &["verify", "a"],
        &[&restore[..], &["--dry-run"]].concat(),
        &restore,
    ];
    for command in commands {
        // times and counts may differ from one run to the next; the shape may not
        let json = user.reads(&[command, &["-o", "json"]].concat());
        let yaml = user.prints(0, &[command, &["-o", "yaml"]].concat());
        let yaml: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{command:?}: {error}: {yaml}"));
        assert_eq!(keys(&json), keys(&yaml), "{command:?}");
    }
}

/// The names of an object's fields, or of the first object's in a list.
fn keys(value: &Value) -> Vec<&String> {
    match value {
        Value::Array(rows) => rows.first().map(keys).unwrap_or_default(),
        value => value.as_object().unwrap().keys().collect(),
    }
}

#[test]
fn what_holds_a_claim_stays_while_it_is_told_something_new_and_no_longer() {
    let user = User::new();
    let told = user.path("told");
    let hold = ["helper", "hold", "--while-changing", &told, "--within", "1s"];
    let (mut holding, began) = (user.command(&hold).spawn().unwrap(), Instant::now());
    for count in 0.. {
        // at once, as kubelet does
        std::fs::write(user.path("new"), count.to_string()).unwrap();
        std::fs::rename(user.path("new"), &told).unwrap();
        assert!(holding.try_wait().unwrap().is_none(), "it ended though it was told {count}");
        if began.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    // two minutes at most
    user.runs(&hold).code(0);
    assert!(holding.wait().unwrap().success());
}
