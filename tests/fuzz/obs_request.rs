//! Requests of obs-sign's clients: whatever bytes come are understood or refused, and the answer's lengths are right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signdrop::obs::{
    reply::Reply,
    request::{Form, HEAD_LEN, Request, body_len},
};

fuzz_target!(|bytes: &[u8]| {
    let Some((head, body)) = bytes.split_first_chunk::<HEAD_LEN>() else {
        return;
    };
    // As the listener does: it reads what the head says, and no more.
    let Some(body) = body.get(..body_len(*head)) else {
        return;
    };
    let answer = match Request::parse(*head, body) {
        Ok(Request { form: Form::Old, command }) => {
            let values = vec![format!("{command:?}").into_bytes()];
            Reply::Done { form: Form::Old, values }
        }
        Ok(Request { form, command }) => {
            let values = vec![format!("{command:?}").into_bytes(), body.to_vec()];
            Reply::Done { form, values }
        }
        Err(error) => Reply::Failed(error.to_string()),
    };
    let answer = answer.to_bytes();
    let number = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
    assert_eq!(answer.len(), 6 + number(2) + number(4));
    assert!(number(0) == 0 || number(2) == 0);
});
