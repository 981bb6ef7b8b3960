use stillpoint_api::{
    Backup, Cluster, ClusterResources, Cut, Digest, Exclusion, ExclusionRule, ProblemKind, ResourceType, Scope,
    ScratchKind, Trees,
};

use super::*;

const KINDS: [CheckKind; 7] = [
    CheckKind::Signature,
    CheckKind::Integrity,
    CheckKind::Counts,
    CheckKind::References,
    CheckKind::Accepted,
    CheckKind::StillThere,
    CheckKind::Equal,
];

const HOSTILE: &str = r#"<script>alert("&'")</script><img src=https://evil.example/x onerror=a>"#;

fn check(kind: CheckKind) -> Check {
    let summary = format!("the summary of {kind}");
    Check { kind, judgement: Judgement::Passed, summary, findings: Vec::new(), more_findings: 0 }
}

fn verdict() -> Verdict {
    Verdict {
        format_version: 1,
        backup: "shop-1".into(),
        root: Some(Digest([0xab; 32])),
        backup_outcome: Some(Outcome::Complete),
        scratch: ScratchKind::Embedded,
        scratch_version: Some("v1.36.0".into()),
        signer: SignerState::Trusted("SHA256:key".into()),
        started: "2026-11-24T02:11:09Z".parse().unwrap(),
        finished: "2026-11-24T02:11:12.5Z".parse().unwrap(),
        result: TestResult::Proven,
        checks: KINDS.map(check).into(),
        not_judged: vec!["scheduling of Pods".into()],
        objects_restored: 1234,
        rto_seconds: Some(1.75),
        rpo_seconds: Some(260.0),
        tool_version: "0.1.0".into(),
    }
}

fn record(name: &str, existed: Option<u64>, captured: u64, excluded: Vec<Exclusion>) -> TypeRecord {
    let resource =
        ResourceType { name: name.parse().unwrap(), version: "v1".into(), kind: "K".into(), namespaced: true };
    TypeRecord { resource, existed, captured, excluded }
}

fn manifest() -> Manifest {
    let deleted = Exclusion { rule: ExclusionRule::BeingDeleted, objects: 2 };
    Manifest {
        format_version: 1,
        backup: Backup { name: "shop-1".into(), uid: "u".into() },
        tool_version: "0.1.0".into(),
        repository_id: "r".into(),
        cluster: Cluster { name: "production".into(), uid: None, version: "v1.35.1".into() },
        started: "2026-11-24T02:06:48Z".parse().unwrap(),
        finished: "2026-11-24T02:06:51Z".parse().unwrap(),
        cut: Cut { revision: 48211, read_at: "2026-11-24T02:06:49Z".parse().unwrap(), attempts: 1, window: None },
        scope: Scope { cluster_resources: ClusterResources::Auto, ..Scope::default() },
        outcome: Outcome::Complete,
        problems: Vec::new(),
        types: vec![
            record("configmaps", Some(1236), 1234, vec![deleted]),
            record("secrets", None, 0, Vec::new()),
            record("podtemplates", Some(0), 0, Vec::new()),
        ],
        volumes: Vec::new(),
        hooks: Vec::new(),
        trees: Trees { resources: Digest([0; 32]), volumes: None },
        previous: None,
    }
}

fn failed(kind: CheckKind, subject: &str, message: &str) -> Verdict {
    let mut verdict = Verdict { result: TestResult::Failed, ..verdict() };
    for check in verdict.checks.iter_mut().filter(|check| check.kind == kind) {
        check.judgement = Judgement::Failed;
        check.findings = vec![Finding { subject: subject.into(), message: message.into() }];
        check.more_findings = 4200;
    }
    verdict
}

#[test]
fn the_answer_comes_first() {
    let page = html(&verdict(), Some(&manifest())).unwrap();
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not on the page"));
    assert!(at("Backup shop-1 is proven to restore") < at("Recovery time (RTO)"));
    assert!(at("Recovery time (RTO)") < at("the summary of signature"));
    for fact in
        ["1.8 s", "4 min 20 s ago", "1,234", "production (v1.35.1)", "revision 48211", "trusted signer SHA256:key"]
    {
        at(fact);
    }
}

#[test]
fn every_check_appears_with_its_judgement() {
    let page = html(&verdict(), None).unwrap();
    for kind in KINDS {
        assert!(page.contains(&format!(">{kind}</h3>")), "{kind}");
        assert!(page.contains(&format!("the summary of {kind}")), "{kind}");
        assert!(page.contains(asks(kind)), "{kind}");
    }
    assert_eq!(page.matches("✓ passed").count(), KINDS.len());
}

#[test]
fn a_finding_is_named_and_the_rest_counted() {
    let verdict = failed(CheckKind::References, "pods.core/shop/web", "refers to secrets.core/shop/token");
    let page = html(&verdict, Some(&manifest())).unwrap();
    assert!(page.contains("failed its restore test"));
    assert!(page.contains("pods.core/shop/web") && page.contains("refers to secrets.core/shop/token"));
    assert!(page.contains("And 4,200 more"));
    assert!(page.contains("failed: references."));
}

#[test]
fn what_qualifies_the_answer_is_said_beside_it() {
    let shaky = Verdict {
        signer: SignerState::Unverified("SHA256:key".into()),
        backup_outcome: Some(Outcome::Degraded),
        ..verdict()
    };
    let page = html(&shaky, None).unwrap();
    assert!(page.contains("Unverified signer SHA256:key") && page.contains("The backup itself is degraded"));
    assert!(!html(&verdict(), None).unwrap().contains("class=\"notices\""));
}

#[test]
fn the_counts_of_every_type_with_objects_and_every_problem_are_listed() {
    let problem = Problem { kind: ProblemKind::List, subject: "secrets.core".into(), message: "forbidden".into() };
    let manifest = Manifest { problems: vec![problem], ..manifest() };
    let page = html(&verdict(), Some(&manifest)).unwrap();
    assert!(page.contains("configmaps.core") && page.contains("being deleted (2)"));
    assert!(page.contains("not listed: forbidden"));
    assert!(page.contains("Types without objects in scope: 1.") && !page.contains("podtemplates"));
    assert!(page.contains("<td class=\"number\">unknown</td>"));
}

#[test]
fn nothing_hostile_gets_onto_the_page_as_markup() {
    let mut verdict = Verdict { backup: HOSTILE.into(), ..failed(CheckKind::Equal, HOSTILE, HOSTILE) };
    verdict.signer = SignerState::Unverified(HOSTILE.into());
    verdict.scratch_version = Some(HOSTILE.into());
    verdict.not_judged = vec![HOSTILE.into()];
    verdict.tool_version = HOSTILE.into();
    verdict.checks[0].summary = HOSTILE.into();
    let mut manifest = manifest();
    manifest.cluster = Cluster { name: HOSTILE.into(), uid: None, version: HOSTILE.into() };
    manifest.types[0].resource.name.resource = HOSTILE.into();
    manifest.problems = vec![Problem { kind: ProblemKind::List, subject: HOSTILE.into(), message: HOSTILE.into() }];
    let page = html(&verdict, Some(&manifest)).unwrap();
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(page.contains("&#60;script&#62;"));
}

#[test]
fn the_page_loads_nothing_and_runs_nothing() {
    let page = html(&verdict(), Some(&manifest())).unwrap();
    for outside in ["http:", "https:", "//", "@import", "url(", "<script", "<iframe", " src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_backup_without_a_readable_manifest_has_a_report_too() {
    let unread = Verdict {
        root: None,
        backup_outcome: None,
        rto_seconds: None,
        rpo_seconds: None,
        objects_restored: 0,
        scratch_version: None,
        signer: SignerState::Unknown,
        ..failed(CheckKind::Integrity, "manifest.json", "is missing")
    };
    let page = html(&unread, None).unwrap();
    assert!(page.contains("Nothing was restored") && page.contains("The manifest could not be read"));
    assert!(page.contains("control") || page.contains("embedded (not started)"));
}
