//! What a server says to a client's keys before it runs anything.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use cipherlens::backend::choice::Devices;
use cipherlens::ckks::{CkksError, KeyGenerator, KeyRequest, RandomSource, presets};
use cipherlens::engine::{EngineError, PrepareOptions, Server, prepare};
use cipherlens::nn::Shape;
use cipherlens_testkit::models::{Builder, seeded};
use serde_json::json;
use std::sync::Arc;

#[test]
fn keys_of_another_plan_or_set_are_refused_when_the_session_opens() {
    let mut b = Builder::new(Shape::new(1, 4, 4));
    b.random("w", &[2, 16], 1.0, &mut seeded(81)).tensor("b", &[2], [0.0; 2]);
    b.node("flat", &["x"], json!({"op": "flatten"})).node("fc", &["flat"], json!({"op": "linear", "weight": "w", "bias": "b"}));
    let prepared = prepare(&b.build("fc"), "insecure-toy", PrepareOptions::default(), &Devices::default()).unwrap();
    let server = Server::new(&prepared);
    let keys = |preset: &str, requests: &[KeyRequest]| {
        let params = presets::by_name(preset).unwrap();
        let backend = Devices::default().open(params.tables().clone()).unwrap().backend;
        let generator = KeyGenerator::new(&params, backend, RandomSource::insecure_seeded(82)).unwrap();
        Arc::new(generator.generate(&generator.secret_key().unwrap(), requests).unwrap())
    };
    let needed = prepared.plan.keys();
    assert!(server.session(keys("insecure-toy", needed), 1).is_ok());
    let refused = server.session(keys("insecure-toy", &needed[1..]), 1).unwrap_err();
    assert!(matches!(refused, EngineError::Scheme(CkksError::MissingKeys { missing: 1, .. })), "{refused:?}");
    let refused = server.session(keys("insecure-small", &[]), 1).unwrap_err();
    assert!(matches!(refused, EngineError::Scheme(CkksError::ParamsMismatch { .. })), "{refused:?}");
}
