//! Profiles of the AWS command line: `~/.aws/credentials` and `~/.aws/config`.
//!
//! The library reads the environment only. Keys, region and endpoint of a profile are turned into the settings that it
//! would find there; a profile that needs more than a file, such as a sign-on in a browser, is refused by name.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ini::{Ini, ParseOption};

use super::options::{Settings, StoreOptions};

/// What a profile can say and the variables that say the same.
const KNOWN: [(&str, &str); 8] = [
    ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("aws_session_token", "AWS_SESSION_TOKEN"),
    ("region", "AWS_REGION"),
    ("endpoint_url", "AWS_ENDPOINT_URL"),
    ("web_identity_token_file", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("role_arn", "AWS_ROLE_ARN"),
    ("role_session_name", "AWS_ROLE_SESSION_NAME"),
];
/// Ways to get keys that need another program or further requests.
const REFUSED: [&str; 6] =
    ["sso_session", "sso_start_url", "credential_process", "source_profile", "credential_source", "login_session"];

/// What is taken of a profile while the environment says who we are.
const NO_KEYS: [&str; 2] = ["region", "endpoint_url"];

type Profile = HashMap<String, String>;

/// The settings of the profile that the settings name, or of `default` if there is one.
///
/// # Errors
/// Says in words what is wrong with it.
pub(super) fn load(settings: &Settings, options: &StoreOptions) -> Result<Settings, String> {
    let named = settings.get("AWS_PROFILE").or_else(|| settings.get("AWS_DEFAULT_PROFILE"));
    let name = named.map_or("default", String::as_str);
    let Some(profile) = read(name, settings)? else {
        return match named {
            Some(name) => Err(format!("the profile {name:?} is neither in {}", places(settings))),
            None => Ok(Settings::new()),
        };
    };
    let has_endpoint = options.endpoint.is_some() || settings.keys().any(|name| name.starts_with("AWS_ENDPOINT_URL"));
    if profile.contains_key("services") && !has_endpoint {
        return Err(format!("the profile {name:?} names its endpoint under services, give it by --endpoint"));
    }
    let keys_are_known = settings.contains_key("AWS_ACCESS_KEY_ID") || (named.is_none() && is_in_pod(settings));
    if !keys_are_known {
        refuse(name, &profile)?;
    }
    let taken = KNOWN.iter().filter(|(key, _)| !keys_are_known || NO_KEYS.contains(key));
    Ok(taken.filter_map(|(key, variable)| Some(((*variable).to_owned(), profile.get(*key)?.clone()))).collect())
}

/// Whether the environment tells who we are without any profile, as it does in a pod.
fn is_in_pod(settings: &Settings) -> bool {
    settings.contains_key("AWS_WEB_IDENTITY_TOKEN_FILE")
        || settings.keys().any(|name| name.starts_with("AWS_CONTAINER_CREDENTIALS_"))
}

fn refuse(name: &str, profile: &Profile) -> Result<(), String> {
    if profile.contains_key("aws_access_key_id") && !profile.contains_key("role_arn") {
        return Ok(());
    }
    match REFUSED.iter().find(|key| profile.contains_key(**key)) {
        Some(key) => Err(format!(
            "the profile {name:?} uses {key}, which is not supported; put its keys into the environment first: \
             eval \"$(aws configure export-credentials --profile {name} --format env)\""
        )),
        None => Ok(()),
    }
}

/// A profile from both files; for keys that are in both, the credentials file is right.
fn read(name: &str, settings: &Settings) -> Result<Option<Profile>, String> {
    let in_config = if name == "default" { "default".to_owned() } else { format!("profile {name}") };
    let mut profile = None;
    for (file, section) in [(config_file(settings), in_config.as_str()), (credentials_file(settings), name)] {
        let Some(found) = file.map(|file| section_of(&file, section)).transpose()?.flatten() else { continue };
        profile.get_or_insert_with(Profile::new).extend(found);
    }
    Ok(profile)
}

fn section_of(file: &Path, section: &str) -> Result<Option<Profile>, String> {
    if !file.exists() {
        return Ok(None);
    }
    let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_file_opt(file, options)
        .map_err(|error| format!("the profiles in {} cannot be read: {error}", file.display()))?;
    let pairs = |found: &ini::Properties| found.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Ok(ini.section(Some(section)).map(pairs))
}

fn credentials_file(settings: &Settings) -> Option<PathBuf> {
    file(settings, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")
}

fn config_file(settings: &Settings) -> Option<PathBuf> {
    file(settings, "AWS_CONFIG_FILE", ".aws/config")
}

fn file(settings: &Settings, variable: &str, usual: &str) -> Option<PathBuf> {
    match settings.get(variable) {
        Some(path) => Some(path.into()),
        None => settings.get("HOME").map(|home| Path::new(home).join(usual)),
    }
}

fn places(settings: &Settings) -> String {
    let shown = |file: Option<PathBuf>| file.map_or("(no HOME)".into(), |file| file.display().to_string());
    format!("{} nor in {}", shown(credentials_file(settings)), shown(config_file(settings)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings whose home has these two files.
    fn home(credentials: &str, config: &str) -> (tempfile::TempDir, Settings) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let settings = Settings::from([("HOME".into(), home.path().to_str().unwrap().into())]);
        (home, settings)
    }

    fn with(settings: &Settings, more: &[(&str, &str)]) -> Settings {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        settings.clone().into_iter().chain(more).collect()
    }

    fn loaded(settings: &Settings) -> Result<Vec<(String, String)>, String> {
        Ok(load(settings, &StoreOptions::default())?.into_iter().collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    const KEYS: &str = "[default]\naws_access_key_id = AKID\naws_secret_access_key = a/b+c\\\"=\n";

    #[test]
    fn keys_are_taken_from_one_file_and_region_from_the_other() {
        let (_home, settings) = home(KEYS, "[default]\nregion = eu-west-7\naws_access_key_id = OLD\noutput = json\n");
        let expected =
            [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_REGION", "eu-west-7"), ("AWS_SECRET_ACCESS_KEY", "a/b+c\\\"=")];
        assert_eq!(loaded(&settings), pairs(&expected));
    }

    #[test]
    fn the_environment_and_the_identity_of_a_pod_come_before_keys_in_files() {
        let (_home, settings) = home(KEYS, "[default]\nregion = eu-west-7\n");
        let region = pairs(&[("AWS_REGION", "eu-west-7")]);
        assert_eq!(loaded(&with(&settings, &[("AWS_ACCESS_KEY_ID", "ENV")])), region);
        assert_eq!(loaded(&with(&settings, &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")])), region);
        let named = with(&settings, &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_PROFILE", "default")]);
        assert_eq!(loaded(&named).unwrap().len(), 3);
    }

    #[test]
    fn no_files_are_no_profile_unless_one_is_named() {
        let nowhere = Settings::from([("HOME".into(), "/nonexistent".into())]);
        assert_eq!(loaded(&nowhere), pairs(&[]));
        let named = loaded(&with(&nowhere, &[("AWS_PROFILE", "backups")])).unwrap_err();
        assert!(named.contains("\"backups\" is neither in /nonexistent/.aws/credentials"), "{named}");
    }

    #[test]
    fn what_needs_more_than_a_file_is_refused_by_name() {
        for (key, value) in [
            ("sso_session", "corp"),
            ("credential_process", "/bin/keys"),
            ("source_profile", "default\nrole_arn = arn:aws:iam::1:role/x"),
            ("credential_source", "Ec2InstanceMetadata\nrole_arn = arn:aws:iam::1:role/x"),
        ] {
            let (_home, settings) = home(KEYS, &format!("[profile corp]\n{key} = {value}\n"));
            let refused = loaded(&with(&settings, &[("AWS_PROFILE", "corp")])).unwrap_err();
            assert!(refused.contains(&format!("\"corp\" uses {key}, which is not supported")), "{refused}");
            assert!(refused.contains("export-credentials --profile corp"), "{refused}");
        }
        let (_home, settings) =
            home(KEYS, "[default]\nservices = local\n[services local]\ns3 =\n  endpoint_url = http://x\n");
        assert!(loaded(&settings).unwrap_err().contains("--endpoint"));
        let named = StoreOptions { endpoint: Some("http://x".into()), ..StoreOptions::default() };
        load(&settings, &named).unwrap();
    }

    #[test]
    fn a_file_that_is_no_profile_is_an_error_that_names_it() {
        let (_home, settings) = home("[default\nx", "");
        assert!(loaded(&settings).unwrap_err().contains(".aws/credentials cannot be read"));
    }
}
