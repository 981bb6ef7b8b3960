//! `hooks.stillpoint.dev/*`.
//!
//! A key is a switch (`freeze`, `preset`, …) or `<pre|hold|post>[.<number>].<setting>`. Everything below our prefix is
//! ours, so a key that means nothing is a mistake: it was meant to mean something.

use std::collections::BTreeMap;

use super::{Annotations, Declared, Fault, PREFIX, Problem};
use crate::hook::{
    duration,
    model::{Hook, Kind, OnError, Source, bounded_timeout, in_shell},
    preset::Preset,
};

const SWITCHES: [&str; 4] = ["container", "freeze", "preset", "preset.path"];
const SETTINGS: [&str; 6] = ["command", "container", "on-error", "order", "shell", "timeout"];

/// A hook's place: its kind, and its number where it has one.
type Place = (Kind, Option<u16>);

/// The settings of one hook by name.
type Settings<'a> = BTreeMap<&'a str, &'a str>;

/// Whether any annotation of ours is about hooks, well written or not.
pub(super) fn any(annotations: &Annotations) -> bool {
    let ours = |key: &str| key.strip_prefix(PREFIX).is_some_and(|key| key != "freeze" && key != "container");
    annotations.keys().any(|key| ours(key))
}

pub(super) fn read(annotations: &Annotations) -> Declared {
    let mut declared = Declared::default();
    let mut places: BTreeMap<Place, Settings<'_>> = BTreeMap::new();
    let mut switches = Settings::new();
    for (key, value) in annotations {
        let Some(rest) = key.strip_prefix(PREFIX) else { continue };
        match place(rest) {
            Some((place, setting)) => _ = places.entry(place).or_default().insert(setting, value),
            None if SWITCHES.contains(&rest) => _ = switches.insert(rest, value),
            None => declared.problems.push(Problem::new(key, Fault::Unknown)),
        }
    }
    if let Some(&value) = switches.get("freeze") {
        match value.parse() {
            Ok(freeze) => declared.freeze = Some(freeze),
            Err(_) => declared.push(format!("{PREFIX}freeze"), Fault::Switch(value.to_owned())),
        }
    }
    for (place, settings) in places {
        match hook(place, &settings) {
            Ok(hook) => declared.hooks.push(hook),
            Err(problem) => declared.problems.push(problem),
        }
    }
    declared.add_preset(&switches);
    if let Some(&container) = switches.get("container") {
        for hook in &mut declared.hooks {
            hook.container.get_or_insert_with(|| container.to_owned());
        }
    }
    declared
}

impl Declared {
    fn push(&mut self, annotation: String, fault: Fault) {
        self.problems.push(Problem::new(annotation, fault));
    }

    fn add_preset(&mut self, switches: &Settings<'_>) {
        let Some(&name) = switches.get("preset") else {
            if switches.contains_key("preset.path") {
                self.push(format!("{PREFIX}preset.path"), Fault::NoCommand(format!("{PREFIX}preset or {PREFIX}pre.")));
            }
            return;
        };
        let hooks = Preset::find(name).and_then(|preset| preset.hooks(switches.get("preset.path").copied()));
        match hooks {
            Ok(hooks) => self.hooks.extend(hooks),
            Err(error) => self.push(format!("{PREFIX}preset"), error.into()),
        }
    }
}

/// Takes `pre.2.on-error` apart.
fn place(key: &str) -> Option<(Place, &str)> {
    let (kind, rest) = key.split_once('.')?;
    let kind = Kind::ALL.into_iter().find(|each| each.name() == kind)?;
    let (number, setting) = match rest.split_once('.') {
        Some((digits, setting)) => {
            let number: u16 = digits.parse().ok()?;
            // one spelling for one hook
            (number.to_string() == digits).then_some((Some(number), setting))?
        }
        None => (None, rest),
    };
    SETTINGS.contains(&setting).then_some(((kind, number), setting))
}

fn hook((kind, number): Place, settings: &Settings<'_>) -> Result<Hook, Problem> {
    let name = match number {
        Some(number) => format!("{kind}.{number}"),
        None => kind.name().to_owned(),
    };
    let problem = |setting: &str, fault| Problem::new(format!("{PREFIX}{name}.{setting}"), fault);
    let command = command(settings, &name)?;
    let mut hook = Hook::new(&name, kind, Source::Stillpoint, command);
    hook.number = number.unwrap_or(0);
    hook.container = settings.get("container").map(|&container| container.to_owned());
    if let Some(&value) = settings.get("on-error") {
        hook.on_error = match value {
            "Fail" => OnError::Fail,
            "Continue" => OnError::Continue,
            _ => return Err(problem("on-error", Fault::OnError(value.to_owned()))),
        };
    }
    if let Some(&value) = settings.get("timeout") {
        let fault = |error| problem("timeout", Fault::Duration { value: value.to_owned(), error });
        hook.timeout = bounded_timeout(duration::parse(value).map_err(fault)?);
    }
    if let Some(&value) = settings.get("order") {
        hook.order = value.parse().map_err(|_| problem("order", Fault::Order(value.to_owned())))?;
    }
    Ok(hook)
}

fn command(settings: &Settings<'_>, name: &str) -> Result<Vec<String>, Problem> {
    let problem = |setting: &str, fault| Err(Problem::new(format!("{PREFIX}{name}.{setting}"), fault));
    match (settings.get("command"), settings.get("shell")) {
        (Some(_), Some(_)) => problem("shell", Fault::CommandAndShell),
        (None, Some(&script)) if script.trim().is_empty() => problem("shell", Fault::EmptyCommand),
        (None, Some(&script)) => Ok(in_shell(script, &[])),
        (Some(&text), None) if !text.starts_with('[') && !text.trim().is_empty() => Ok(vec![text.to_owned()]),
        (Some(&text), None) if text.trim().is_empty() => problem("command", Fault::EmptyCommand),
        (Some(&text), None) => match serde_json::from_str::<Vec<String>>(text) {
            Ok(command) if command.is_empty() => problem("command", Fault::EmptyCommand),
            Ok(command) => Ok(command),
            Err(error) => problem("command", Fault::NotJson(error.to_string())),
        },
        (None, None) => {
            let setting = settings.keys().next().copied().unwrap_or_default();
            problem(setting, Fault::NoCommand(format!("{PREFIX}{name}.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hook::{annotations::annotations, duration::DurationError, preset::PresetError};

    fn read_ours<const N: usize>(pairs: [(&str, &str); N]) -> Declared {
        let keys = pairs.map(|(key, value)| (format!("{PREFIX}{key}"), value));
        read(&keys.into_iter().map(|(key, value)| (key, value.to_owned())).collect())
    }

    fn fault(key: &str, value: &str) -> Fault {
        let declared = read_ours([("pre.command", "/x"), (key, value)]);
        assert_eq!(declared.problems.len(), 1, "{declared:?}");
        assert!(declared.problems[0].is_error());
        declared.problems[0].fault.clone()
    }

    #[test]
    fn a_hook_has_all_its_settings() {
        let declared = read_ours([
            ("hold.2.shell", "lock; read line"),
            ("hold.2.container", "db"),
            ("hold.2.on-error", "Continue"),
            ("hold.2.timeout", "5s"),
            ("hold.2.order", "-3"),
        ]);
        let [hook] = &declared.hooks[..] else { panic!("{declared:?}") };
        assert_eq!((&*hook.name, hook.kind, hook.container.as_deref()), ("hold.2", Kind::Hold, Some("db")));
        assert_eq!(hook.command, ["/bin/sh", "-c", "lock; read line"]);
        assert_eq!((hook.on_error, hook.timeout, hook.order), (OnError::Continue, Duration::from_secs(5), -3));
        assert_eq!(declared.problems, []);
    }

    #[test]
    fn numbered_hooks_stand_beside_the_one_without_a_number() {
        let declared =
            read_ours([("pre.command", "/a"), ("pre.2.command", r#"["/b", "c"]"#), ("post.10.command", "/d")]);
        let names: Vec<_> = declared.hooks.iter().map(|hook| &*hook.name).collect();
        assert_eq!(names, ["pre", "pre.2", "post.10"]);
    }

    #[test]
    fn a_container_for_all_is_for_those_that_name_none() {
        let declared =
            read_ours([("container", "db"), ("preset", "postgresql"), ("pre.command", "/a"), ("pre.container", "web")]);
        let containers: Vec<_> = declared.hooks.iter().filter_map(|hook| hook.container.as_deref()).collect();
        assert_eq!(containers, ["web", "db"]);
    }

    #[test]
    fn every_mistake_has_a_name() {
        assert_eq!(fault("pre.timeout", "300"), Fault::Duration { value: "300".into(), error: DurationError::NoUnit });
        assert_eq!(fault("pre.on-error", "fail"), Fault::OnError("fail".into()));
        assert_eq!(fault("pre.order", "first"), Fault::Order("first".into()));
        assert_eq!(fault("freeze", "yes"), Fault::Switch("yes".into()));
        assert_eq!(fault("pre.shell", "sync"), Fault::CommandAndShell);
        assert_eq!(fault("post.timeout", "5s"), Fault::NoCommand(format!("{PREFIX}post.")));
        assert_eq!(fault("post.command", "[]"), Fault::EmptyCommand);
        assert_eq!(fault("post.shell", " "), Fault::EmptyCommand);
        assert!(matches!(fault("post.command", "[1]"), Fault::NotJson(_)));
        assert_eq!(fault("preset", "oracle"), PresetError::Unknown("oracle".into()).into());
        assert_eq!(fault("preset", "sqlite"), PresetError::NeedsPath("sqlite").into());
        for unknown in ["pre", "pre.comand", "before.command", "pre.x.command", "pre.02.command", "frezee", ""] {
            assert_eq!(fault(unknown, "x"), Fault::Unknown, "{unknown}");
        }
    }

    #[test]
    fn annotations_of_others_are_none_of_ours() {
        assert_eq!(read(&annotations([("stillpoint.dev/hooks", "x")])), Declared::default());
    }
}
