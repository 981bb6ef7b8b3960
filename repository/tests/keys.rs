//! Several passwords for one repository, ours and restic's opening each other's.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{PASSWORD, init, local, password, restic_command, restic_ok};
use object_store::memory::InMemory;
use stillpoint_repository::{Error, Id, Kdf, Password, Repository, Store};
use stillpoint_test_support::{
    faulty::{Fault, Faulty},
    require,
};

fn second() -> Password {
    Password::new("second")
}

async fn opens(store: &Store, password: &Password) -> bool {
    match Repository::open(store.clone(), password).await {
        Ok(_) => true,
        Err(Error::WrongPassword { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn restic_opens(repository: &Path, password: &str) -> bool {
    let mut command = restic_command(repository);
    command.env("RESTIC_PASSWORD", password).args(["cat", "config"]).output().unwrap().status.success()
}

#[tokio::test]
async fn each_key_opens_until_it_is_removed() {
    let store = Store::memory();
    let repository = init(&store).await;
    let added = repository.add_key(&second(), Kdf::fast_for_tests()).await.unwrap();
    assert!(opens(&store, &password()).await && opens(&store, &second()).await);

    let keys = repository.keys().await.unwrap();
    let used: Vec<_> = keys.iter().filter(|key| key.in_use).map(|key| key.id).collect();
    assert!(keys.len() == 2 && used.len() == 1 && used[0] != added);
    assert!(keys.iter().all(|key| key.created.is_some() && !key.host.is_empty() && !key.user.is_empty()));

    let refused = repository.remove_key(&used[0]).await;
    assert!(matches!(refused, Err(Error::KeyInUse { .. })), "{refused:?}");
    repository.remove_key(&added).await.unwrap();
    assert!(opens(&store, &password()).await && !opens(&store, &second()).await);
    let absent = repository.remove_key(&Id::of(b"no key")).await;
    assert!(matches!(absent, Err(Error::FileMissing { .. })), "{absent:?}");
}

#[tokio::test]
async fn the_last_key_stays_even_if_the_one_in_use_was_removed_elsewhere() {
    let store = Store::memory();
    let first = init(&store).await;
    let added = first.add_key(&second(), Kdf::fast_for_tests()).await.unwrap();
    let other = Repository::open(store.clone(), &second()).await.unwrap();
    let used = first.keys().await.unwrap().iter().find(|key| key.in_use).unwrap().id;
    other.remove_key(&used).await.unwrap();
    assert!(matches!(first.remove_key(&added).await, Err(Error::FileMissing { .. })));
    assert!(opens(&store, &second()).await);
}

#[tokio::test]
async fn no_more_keys_are_made_than_anybody_tries() {
    let store = Store::memory();
    let repository = init(&store).await;
    for n in 1..20 {
        repository.add_key(&Password::new(format!("password {n}")), Kdf::fast_for_tests()).await.unwrap();
    }
    let refused = repository.add_key(&second(), Kdf::fast_for_tests()).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    assert!(opens(&store, &password()).await);
}

#[tokio::test(start_paused = true)]
async fn a_password_is_changed_or_not_whatever_fails_and_one_always_opens() {
    let mut changed = 0;
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::Hang, Fault::Die] {
        for at in 0.. {
            let below = std::sync::Arc::new(InMemory::new());
            let in_store = |objects| Store::new(objects, object_store::path::Path::from("prefix"), "test://store");
            let clean = in_store(below.clone());
            init(&clean).await;
            let faulty = Faulty::new(at, fault);
            let result = match Repository::open(in_store(faulty.before(&below)), &password()).await {
                Ok(repository) => repository.change_password(&second(), Kdf::fast_for_tests()).await,
                Err(error) => Err(error),
            };
            let (old, new) = (opens(&clean, &password()).await, opens(&clean, &second()).await);
            assert!(old || new, "{fault:?} at {at}");
            if result.is_ok() {
                assert!(new && !old, "{fault:?} at {at}");
                changed += 1;
            }
            if !faulty.has_struck() {
                result.unwrap();
                assert!(at > 8, "{at} operations are too few to be all");
                break;
            }
        }
    }
    assert!(changed >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_opens_our_keys_and_we_open_restics() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    repository.add_key(&second(), Kdf::default()).await.unwrap();
    assert!(restic_opens(&path, PASSWORD) && restic_opens(&path, "second") && !restic_opens(&path, "third"));

    let file = folder.path().join("third");
    std::fs::write(&file, "third").unwrap();
    restic_ok(&path, ["key", "add", "--new-password-file", file.to_str().unwrap()]);
    let third = Password::new("third");
    assert!(opens(&store, &third).await);
    assert_eq!(repository.keys().await.unwrap().len(), 3);
    assert!(repository.keys().await.unwrap().iter().all(|key| key.created.is_some()), "Go's times are read too");

    let opened = Repository::open(store.clone(), &third).await.unwrap();
    opened.change_password(&Password::new("fourth"), Kdf::fast_for_tests()).await.unwrap();
    assert!(restic_opens(&path, "fourth") && !restic_opens(&path, "third"));
    restic_ok(&path, ["check"]);
}
