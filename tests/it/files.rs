//! A folder as the origin: right types, right validators, and nothing outside of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::scene::Scene;

/// A running scene whose origin is a little folder; beside that folder lies a secret.
fn folder() -> Scene {
    let setup = Scene::new();
    let root = setup.dir().join("site");
    for (name, content) in [
        ("site/index.html", "<h1>home</h1>"),
        ("site/style.css", "h1 { color: teal }"),
        ("site/with space.txt", "spaced"),
        ("site/blog/index.html", "<h1>blog</h1>"),
        ("site/.hidden", "dot"),
        ("site/.git/config", "dot"),
        ("secret.txt", "secret"),
        ("site-private/secret.txt", "secret"),
    ] {
        let path = setup.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    symlink("style.css", root.join("inside.css")).unwrap();
    symlink("../secret.txt", root.join("outside.txt")).unwrap();
    symlink("..", root.join("up")).unwrap();
    let backends = format!("[\"file:{}\"]", root.display());
    setup.upstream("backends", &backends).start()
}

#[test]
fn files_are_served_with_their_type_and_validators() {
    let scene = folder();
    let page = scene.get("/style.css");
    page.is(200)
        .sees("h1 { color: teal }")
        .by("uri-miss")
        .stored();
    assert!(
        page.header("Content-Type")
            .unwrap_or_default()
            .starts_with("text/css"),
        "{page}"
    );
    for name in ["ETag", "Last-Modified", "Cache-Control"] {
        assert!(page.header(name).is_some(), "no {name} in {page}");
    }
    scene.get("/style.css").by("hit");
}

#[test]
fn a_folder_is_its_index() {
    let scene = folder();
    let home = scene.get("/");
    home.is(200).sees("<h1>home</h1>");
    assert!(
        home.header("Content-Type")
            .unwrap_or_default()
            .starts_with("text/html"),
        "{home}"
    );
    scene.get("/blog/").is(200).sees("<h1>blog</h1>");
}

#[test]
fn a_folder_without_its_slash_is_sent_there_or_not_found() {
    let answer = folder().get("/blog");
    answer.is_one_of(&[301, 302, 307, 308, 404]);
    if answer.status != 404 {
        assert!(
            answer
                .header("Location")
                .unwrap_or_default()
                .ends_with("/blog/"),
            "{answer}"
        );
    }
}

#[test]
fn names_are_decoded_once() {
    let scene = folder();
    scene.get("/with%20space.txt").is(200).sees("spaced");
    scene.get("/with%2520space.txt").is(404);
}

#[test]
fn what_is_not_there_is_not_found() {
    let scene = folder();
    for target in [
        "/nothing",
        "/style.css/",
        "/style.css/more",
        "/blog/nothing",
        "/nul%00l",
    ] {
        scene.get(target).is_one_of(&[400, 404]);
    }
}

#[test]
fn nothing_outside_the_folder_can_be_reached() {
    let scene = folder();
    for target in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/blog/../../secret.txt",
        "/blog/..%2f..%2fsecret.txt",
        "/%2e%2e%2fsite-private/secret.txt",
        "//secret.txt",
        "/..\\secret.txt",
        "/..%5csecret.txt",
        "/outside.txt",
        "/up/secret.txt",
        "/up/site-private/secret.txt",
    ] {
        let answer = scene.get(target);
        answer.is_one_of(&[400, 403, 404]);
        assert!(!contains(&answer.body, b"secret"), "{target}: {answer}");
    }
}

#[test]
fn dotfiles_are_not_there() {
    let scene = folder();
    for target in ["/.hidden", "/.git/config", "/%2ehidden"] {
        scene.get(target).is_one_of(&[403, 404]);
    }
}

#[test]
fn a_link_within_the_folder_is_followed() {
    folder()
        .get("/inside.css")
        .is(200)
        .sees("h1 { color: teal }");
}

#[test]
fn only_reading_is_possible() {
    let scene = folder();
    for method in ["POST", "PUT", "DELETE"] {
        scene.ask(method, "/style.css", &[], b"new").is(405);
    }
    scene.head("/style.css").is(200).sees("");
}

#[test]
fn a_changed_file_is_seen_after_a_purge() {
    let scene = folder();
    let first = scene.get("/style.css");
    first.is(200);
    fs::write(scene.dir().join("site/style.css"), "h1 { color: plum; }").unwrap();
    scene.get("/style.css").sees("h1 { color: teal }").by("hit");
    scene.purge(&["/style.css"]);
    let second = scene.get("/style.css");
    second.sees("h1 { color: plum; }");
    assert_ne!(first.header("ETag"), second.header("ETag"));
}

#[test]
fn every_link_of_the_example_site_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/site");
    let backends = format!("[\"file:{}\"]", root.display());
    let scene = Scene::new().upstream("backends", &backends).start();
    let (mut known, mut next) = (vec!["/".to_owned()], 0);
    while let Some(target) = known.get(next).cloned() {
        next += 1;
        // Made by fixtures/make.sh, which a plain `cargo test` has not run.
        if ["/large.bin", "/font.bin"].contains(&target.as_str()) {
            continue;
        }
        let answer = scene.get(&target);
        answer.is(200);
        let page = answer
            .header("Content-Type")
            .unwrap_or_default()
            .starts_with("text/html");
        if page {
            for link in links(&String::from_utf8_lossy(&answer.body)) {
                if !known.contains(&link) {
                    known.push(link);
                }
            }
        }
    }
    assert!(known.len() > 8, "only {known:?}");
}

/// Targets that `page` names, from the root of the site, without fragments.
fn links(page: &str) -> Vec<String> {
    let named = ["href=\"/", "src=\"/"]
        .iter()
        .flat_map(|start| page.split(start).skip(1));
    named
        .filter_map(|rest| rest.split(['"', '#']).next())
        .map(|path| format!("/{path}"))
        .collect()
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
