//! A conversation as a model takes it: turns of the person and of the model by turns, the person first and
//! last. Many prompt templates refuse anything else. Pure.

use hubbub_protocol::{Role, Seq};

use crate::ports::{ChatTurn, Said, TurnRole};

/// Between two messages that become one turn.
const BETWEEN: &str = "\n\n";

/// What goes into a prompt of what was said, in the order of the conversation: each answer after its
/// question, though later messages may have been stored before it. Left out is what says nothing, and a
/// question that a content filter refused, with what there was of its answer: the filter would refuse every
/// prompt that has it. The question at `to` itself stays, whatever it is.
pub(super) fn conversation(said: Vec<Said>, to: Seq) -> Vec<Said> {
    let filtered: Vec<Seq> = said
        .iter()
        .filter(|said| said.filtered)
        .map(|said| said.at)
        .collect();
    let mut said: Vec<Said> = said
        .into_iter()
        .filter(|said| said.at < to || (said.at == to && !said.answers))
        .filter(|said| said.at == to || !(filtered.contains(&said.at) || is_blank(&said.text)))
        .collect();
    said.sort_by_key(|said| (said.at, said.answers));
    said
}

/// The turns of a conversation, oldest first, after the bot's instructions. What the server itself said
/// joins them: a system's turn further down is refused by many templates.
pub(super) fn turns(instructions: &str, said: &[Said]) -> Vec<ChatTurn> {
    let mut system = ChatTurn {
        role: TurnRole::System,
        text: instructions.to_owned(),
    };
    let mut turns: Vec<ChatTurn> = Vec::new();
    for said in said {
        let role = turn_role(said.role);
        let last = match turns.last_mut() {
            _ if role == TurnRole::System => Some(&mut system),
            Some(last) if last.role == role => Some(last),
            // The window may begin within an exchange.
            None if role == TurnRole::Assistant => continue,
            _ => None,
        };
        match last {
            Some(last) => join(&mut last.text, &said.text),
            None => turns.push(ChatTurn {
                role,
                text: said.text.clone(),
            }),
        }
    }
    if !is_blank(&system.text) {
        turns.insert(0, system);
    }
    turns
}

pub(super) fn join(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push_str(BETWEEN);
    }
    text.push_str(more);
}

fn turn_role(role: Role) -> TurnRole {
    match role {
        Role::Visitor => TurnRole::User,
        Role::Assistant | Role::Operator => TurnRole::Assistant,
        Role::System => TurnRole::System,
    }
}

/// Whether a text shows nothing: white space, and characters without width or shape of their own.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(|char| {
        char.is_whitespace()
            || char.is_control()
            || matches!(char, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(at: u64, role: Role, answers: bool, text: &str) -> Said {
        Said {
            at: Seq(at),
            role,
            answers,
            filtered: false,
            text: text.to_owned(),
        }
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![
            4 => Just(Role::Visitor),
            4 => Just(Role::Assistant),
            1 => Just(Role::Operator),
            1 => Just(Role::System),
        ]
    }

    fn anything() -> impl Strategy<Value = Said> {
        let text = prop_oneof![Just(String::new()), Just(" \n".to_owned()), ".{1,12}"];
        (1u64..30, role(), any::<bool>(), any::<bool>(), text).prop_map(
            |(at, role, answers, filtered, text)| Said {
                at: Seq(at),
                role,
                answers,
                filtered: filtered && answers,
                text,
            },
        )
    }

    proptest! {
        // M12
        /// Any history whatever comes out alternating, the person first, ending with the question.
        #[test]
        fn any_history_comes_out_alternating_and_ends_with_the_question(
            history in prop::collection::vec(anything(), 0..40), instructions in "|Be kind\\.",
        ) {
            let mut history = history;
            history.push(said(30, Role::Visitor, false, "the question"));
            let said = conversation(history, Seq(30));
            let mut turns = turns(&instructions, &said);
            if turns[0].role == TurnRole::System {
                turns.remove(0);
            }
            for (n, turn) in turns.iter().enumerate() {
                let expected = if n % 2 == 0 { TurnRole::User } else { TurnRole::Assistant };
                prop_assert_eq!(turn.role, expected);
                prop_assert!(!is_blank(&turn.text));
            }
            let last = turns.last().unwrap();
            prop_assert_eq!(last.role, TurnRole::User);
            prop_assert!(last.text.ends_with("the question"));
        }

        // M13
        /// However the commits of questions and answers interleave, each answer follows its question.
        #[test]
        fn each_answer_follows_its_question_whatever_their_numbers(
            order in Just((0..8u64).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            // Question n is `at` n + 1; the list comes in any order, as numbers may be given in any.
            let history = order.iter().flat_map(|n| {
                let answer = said(n + 1, Role::Assistant, true, &format!("answer {n}"));
                [answer, said(n + 1, Role::Visitor, false, &format!("question {n}"))]
            });
            let said = conversation(history.collect(), Seq(8));
            let turns = turns("", &said);
            let texts: Vec<_> = turns.iter().map(|turn| turn.text.clone()).collect();
            let expected: Vec<_> = (0..8)
                .flat_map(|n| [format!("question {n}"), format!("answer {n}")])
                .take(15)
                .collect();
            prop_assert_eq!(texts, expected);
        }
    }

    // M12
    #[test]
    fn messages_in_a_row_become_one_turn_and_the_servers_words_join_the_instructions() {
        let history = vec![
            said(1, Role::Assistant, false, "Welcome!"),
            said(2, Role::Visitor, false, "one"),
            said(3, Role::Visitor, false, "  "),
            said(4, Role::System, false, "The shop is closed."),
            said(5, Role::Visitor, false, "two"),
            said(5, Role::Assistant, true, "stopped he"),
            said(6, Role::Operator, false, "I am Ada."),
            said(7, Role::Visitor, false, "three"),
        ];
        let turns = turns("Be kind.", &conversation(history, Seq(7)));
        let turns: Vec<_> = turns.iter().map(|t| (t.role, t.text.as_str())).collect();
        assert_eq!(
            turns,
            [
                (TurnRole::System, "Be kind.\n\nThe shop is closed."),
                (TurnRole::User, "one\n\ntwo"),
                (TurnRole::Assistant, "stopped he\n\nI am Ada."),
                (TurnRole::User, "three"),
            ]
        );
    }

    // M12
    #[test]
    fn what_a_filter_refused_spoils_no_later_prompt() {
        let mut refused = said(1, Role::Assistant, true, "");
        refused.filtered = true;
        let history = vec![
            said(1, Role::Visitor, false, "something bad"),
            refused,
            said(2, Role::Visitor, false, "something good"),
        ];
        let turns = turns("", &conversation(history, Seq(2)));
        assert_eq!(turns.len(), 1);
        assert_eq!(turns[0].text, "something good");
    }

    // S4
    #[test]
    fn what_shows_nothing_is_blank() {
        for blank in ["", " ", "\n\t\r\n", "\u{A0}\u{200B}\u{FEFF}\u{3000}", "\0"] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for shown in [".", " a ", "\u{200B}é", "👍\u{FE0F}"] {
            assert!(!is_blank(shown), "{shown:?}");
        }
    }
}
