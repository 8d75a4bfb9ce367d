"""English."""

from __future__ import annotations

from .language import Language

_REPLACE = r"(?:replace|substitute|swap(?: out)?|switch(?: out)?|exchange)"
_CHANGE = r"(?:change|turn|correct|rename|convert|alter|edit|modify|make|switch|swap|replace)"
_DELETE = (
    r"(?:delete|remove|cut(?: out)?|drop|erase|omit|strip(?: out)?|take (?:out|away)|get rid of|leave out|cross out"
    r"|scrap|snip(?: out)?|edit out|trim)"
)
_INSERT = r"(?:insert|add|put|include|place|slip in)"
_SAY = r"(?:say|use|write|put|(?:it |this |that )?should (?:be|say|read)|i meant(?: to say)?)"
_END = r"(?: (?:of|in) (?:it|the (?:recording|sentence|clip|audio)))?"

ENGLISH = Language(
    replace=(
        rf"{_REPLACE} OLD (?:with|by|for) NEW",
        rf"{_CHANGE} OLD (?:to|into) NEW",
        rf"{_CHANGE} OLD (?:with|by|for) NEW",
        rf"{_SAY} NEW,? (?:instead of|rather than|in place of|not) OLD",
        rf"instead of OLD,? {_SAY} NEW",
        r"(?:it['’]s|it is|that['’]s|i said|i mean) NEW,? (?:and )?not OLD",
        r"(?:it['’]s|it is|that['’]s|i (?:did not|didn['’]t) (?:say|mean)) not OLD,? (?:it['’]s|but|it is) NEW",
        r"make (?=MARK)OLD (?=MARK)NEW",
        r"(?!(?:it|this|that|he|she|they|you|we|i|there)\b)OLD (?:should|must|has to|needs to) (?:be|become)"
        r"(?: (?:replaced (?:with|by)|changed (?:in)?to))? NEW",
        r"OLD ?(?:->|→|=>|⇒) ?NEW",
    ),
    delete=(rf"{_DELETE} OLD", r"(?:cut|take|leave|strip|edit|cross) OLD out"),
    before=(
        rf"{_INSERT} NEW (?:right |just |directly |immediately )?(?:before|in front of) OLD",
        rf"(?:right |just )?before OLD,? {_INSERT} NEW",
    ),
    after=(
        rf"{_INSERT} NEW (?:right |just |directly |immediately )?(?:after|behind|following) OLD",
        rf"(?:right |just )?after OLD,? {_INSERT} NEW",
    ),
    first=(
        rf"{_INSERT} NEW (?:at|to|in) the (?:very )?(?:beginning|start|front){_END}",
        r"(?:start|begin)(?: it)? with NEW",
    ),
    last=(rf"(?:{_INSERT}|append) NEW (?:at|to|on) the (?:very )?end{_END}", r"(?:end|finish)(?: it)? with NEW"),
    say=(
        r"(?:it should )?(?:now )?(?:say|read) NEW",
        r"(?:change|replace) (?:it|everything|all of it|the whole (?:thing|sentence)) (?:to|with|by) NEW",
    ),
    transcript=r"(?:the )?(?:new )?(?:transcript|text)(?: is)? ?[:：]|(?:it should )?(?:say|read) ?[:：]",
    asking=(
        r"\b(?:replac(?:e|ing)|substitut(?:e|ing)|swap(?:ping)?|chang(?:e|ing)|delet(?:e|ing)|remov(?:e|ing)|eras(?:e|ing)"
        r"|omit|insert(?:ing)?|add(?:ing)?|append|cut|drop|put|say|rename|correct|get rid of|instead of|rather than"
        r"|(?:take|leave|cross|strip) (?:\w+ )?out|take away|scrap|strip|switch|exchange|trim|bleep|mute"
        r"|i meant|should (?:be|say|read))\b"
    ),
    starting=r"\b(?:switch|exchange|turn|convert|alter|modify|make|take|leave|strip|cross|scrap|snip|trim|edit|use|write"
    r"|include|place|slip|before|after|start|begin|end|finish)\b",
    openings=(
        r"(?:and|then|also|now|so|ok(?:ay)?|just|please|pls|plz|kindly|finally|next|hi|hey|hello"
        r"|(?:can|could|would|will) (?:you|u|we)|i(?:['’]d| would) like (?:you )?to|i (?:want|need) (?:you )?to"
        r"|you (?:should|can|could|must)|we (?:should|must)|let['’]s|go ahead and)\b,?"
    ),
    preambles=(
        r"(?:sorry|oops|hi|hey|hello|good (?:morning|afternoon|evening)|pardon|my (?:mistake|bad))\b"
        r"|[^.,!?;:]*\b(?:wrong|incorrect|mistake|misspoke|misspelled|typo)\b"
    ),
    courtesies=r"\b(?:please|pls|plz|kindly|thanks|thank you|for me|will you|would you|if you can|if possible)\b",
    everywhere=r"\b(?:everywhere|throughout|every time|each time|wherever (?:it is said|it appears|i say it))\b",
    listing=r",? and |, ?|,? or ",
    determiners=r"the (?:very )?",
    counts={
        r"first|1st": 1,
        r"second|2nd": 2,
        r"third|3rd": 3,
        r"fourth": 4,
        r"fifth": 5,
        r"sixth": 6,
        r"second[- ]to[- ]last|second last|next to last|penultimate|last but one": -2,
        r"last|final": -1,
        r"(?:every(?: single)?|each|(?:all|both)(?: of)?(?: (?:the|those|these|my))?)(?: one of the)?": 0,
        r"\d+(?:st|nd|rd|th)": 0,
    },
    counts_after={
        r"(?:at|from|in) the (?:very )?(?:beginning|start)": 1,
        r"(?:at|from) the (?:very )?end": -1,
    },
    numbers={"two": 2, "three": 3, "four": 4, "five": 5, "six": 6},
    kinds=(
        r"(?:time |(?:the )?(?:words?|phrases?|(?:occurrence|instance|mention)s?(?: of(?: the)?)?(?: words?)?) "
        r"|(?:the )?(?:sentence|name|number|line|part|bit|expression|term|text|time|date|price)s? (?=MARK))"
    ),
    articles=r"(?:the|a|an) ",
    positions=(rf"(?:the )?(?:very )?COUNT(?: SIZE)? words?{_END}",),
    nothing=r"nothing(?: at all)?",
    sounds=r"(?:(?:a|an|some|the) )?(?:short |long )?(?:beep|bleep|silence|pause|noise|tone|laugh|cough)s?(?: sound)?",
    carried=("replace", "delete"),
)
