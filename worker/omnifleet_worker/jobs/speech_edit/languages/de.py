"""German: the verb may stand first, split in two, or at the end."""

from __future__ import annotations

from .language import Language

_SIE = r"(?:n sie)?"
_REPLACE = rf"(?:ersetze?{_SIE}|tausche?{_SIE}|wechs(?:le|eln sie))"
_CHANGE = rf"(?:(?:ver)?änder[en]?(?:n sie)?|korrigiere?{_SIE}|mache?{_SIE}|wand(?:le|eln sie)|verwand(?:le|eln sie))"
_DELETE = rf"(?:lösche?{_SIE}|entferne?{_SIE}|streiche?{_SIE}|tilge?{_SIE})"
_TAKE = rf"(?:schneide?{_SIE}|nimm|nehmen sie|lass|lasse{_SIE}|wirf|kürze{_SIE}|mache?{_SIE}|streiche?{_SIE})"
_INSERT = rf"(?:füge?{_SIE}|setze?{_SIE}|baue?{_SIE}|schreibe?{_SIE}|ergänze?{_SIE}|stelle?{_SIE}|pack)"
_SAY = rf"(?:sage?{_SIE}|nimm|schreibe?{_SIE}|verwende?{_SIE})"
_CLOSE = r"(?:direkt |unmittelbar |gleich )?"
_INSTEAD = r"(?:statt|anstatt|anstelle von|an ?stelle von)"
_IN = r"(?: (?:ein|hinzu|an|dazu|rein|hinein))?"
_PUT = r"(?:einfügen|einsetzen|hinzufügen|ergänzen|setzen|schreiben|einbauen)"

GERMAN = Language(
    replace=(
        rf"{_REPLACE} OLD (?:durch|gegen|mit) NEW(?: (?:aus|ein))?",
        rf"{_CHANGE} OLD (?:in|zu|auf) NEW(?: (?:um|ab))?",
        rf"{_CHANGE} aus OLD[,:]? NEW",
        r"OLD (?:durch|gegen|mit) NEW (?:ersetzen|austauschen|tauschen)",
        r"OLD (?:in|zu|auf) NEW (?:um|ab)?ändern",
        r"OLD (?:soll|muss|sollte) durch NEW ersetzt werden",
        r"OLD (?:soll|muss|sollte) NEW (?:heißen|sein|lauten|werden)",
        rf"{_SAY} NEW,? {_INSTEAD} OLD",
        rf"{_INSTEAD} OLD,? {_SAY} NEW",
        rf"(?=MARK)NEW,? {_INSTEAD} OLD(?: (?:sagen|schreiben))?",
        r"(?:es|das|er|sie|ich) (?:heißt|heiße|ist|meinte?) NEW,? (?:und )?nicht OLD",
        r"(?:(?:es|das) (?:heißt|ist) )?nicht OLD,? sondern NEW",
        r"aus OLD(?: |, ?)(?:bitte )?NEW machen",
        r"OLD ?(?:->|→|=>|⇒) ?NEW",
    ),
    delete=(
        rf"{_DELETE} OLD",
        rf"{_TAKE} OLD (?:heraus|raus|weg|aus)",
        r"OLD (?:löschen|entfernen|streichen|weglassen|(?:he)?rausschneiden|(?:he)?rausnehmen|wegnehmen)",
    ),
    before=(
        rf"{_INSERT} NEW {_CLOSE}vor OLD{_IN}",
        rf"NEW {_CLOSE}vor OLD {_PUT}",
        rf"{_CLOSE}vor OLD NEW {_PUT}",
        rf"{_INSERT} {_CLOSE}vor OLD NEW{_IN}",
    ),
    after=(
        rf"{_INSERT} NEW {_CLOSE}(?:nach|hinter) OLD{_IN}",
        rf"NEW {_CLOSE}(?:nach|hinter) OLD {_PUT}",
        rf"{_CLOSE}(?:nach|hinter) OLD NEW {_PUT}",
        rf"{_INSERT} {_CLOSE}(?:nach|hinter) OLD NEW{_IN}",
    ),
    first=(rf"{_INSERT} NEW (?:ganz )?am anfang{_IN}", rf"NEW (?:ganz )?am anfang {_PUT}"),
    last=(
        rf"{_INSERT} NEW (?:ganz )?am (?:ende|schluss){_IN}",
        rf"NEW (?:ganz )?am (?:ende|schluss) {_PUT}",
        rf"{_INSERT} (?:ganz )?am (?:ende|schluss) NEW{_IN}",
    ),
    say=(r"sage?(?:n sie)? NEW", r"ersetze?(?:n sie)? alles durch NEW"),
    transcript=r"(?:der |das )?(?:neue[rs]? )?(?:text|transkript|wortlaut) ?[:：]|sage? ?[:：]",
    asking=(
        r"\b(?:ersetz(?:e|en|t)?|(?:aus)?tausch(?:e|en)|(?:ver|um|ab)?änder(?:e|n)|korrigiere?n?|lösch(?:e|en)|entfern(?:e|en)"
        r"|streich(?:e|en)|füge?|(?:ein|hinzu)fügen|ergänz(?:e|en)|setze?|sage?|weglassen|(?:he)?raus(?:schneiden|nehmen)?|statt"
        r"|anstatt|anstelle|an stelle)\b"
    ),
    starting=r"\b(?:wechs(?:le|eln)|mache?|wand(?:le|eln)|tilge?n?|schneide?n?|nimm|nehmen|lass|lasse?n?|wirf|kürze?n?|baue?n?"
    r"|schreibe?n?|stelle?n?|pack|vor|nach|hinter)\b",
    openings=(
        r"(?:und|dann|danach|auch|also|bitte|mal|jetzt|hallo|hi|(?:kannst|könntest|würdest) du"
        r"|(?:können|könnten|würden) sie|ich (?:möchte|will|hätte gern)|du (?:kannst|sollst|solltest)"
        r"|wir (?:sollten|müssen))(?!\w),?"
    ),
    preambles=(
        r"(?:entschuldigung|entschuldige|sorry|verzeihung|tut mir leid|ups|hallo|hi|guten (?:tag|morgen|abend))\b"
        r"|[^.,!?;:]*\b(?:falsch|fehler|vertan|versprochen|verwechselt)\b"
    ),
    courtesies=r"\b(?:bitte|mal|danke|für mich|bitte schön)\b",
    everywhere=r"\b(?:überall|jedes mal|jedesmal)\b",
    listing=r",? und |, ?|,? oder ",
    determiners=r"(?:das|der|die|den|dem|des) (?:aller)?",
    counts={
        r"erste[nmrs]?|1\.": 1,
        r"zweite[nmrs]?|2\.": 2,
        r"dritte[nmrs]?|3\.": 3,
        r"vierte[nmrs]?": 4,
        r"fünfte[nmrs]?": 5,
        r"vorletzte[nmrs]?": -2,
        r"letzte[nmrs]?": -1,
        r"alle(?:[nrs]|(?: die| diese))?|jede[nmrs]?|sämtliche[nr]?|beide[nr]?": 0,
        r"\d+\.": 0,
    },
    counts_after={r"(?:ganz )?am anfang": 1, r"(?:ganz )?am (?:ende|schluss)": -1},
    numbers={"zwei": 2, "beiden": 2, "drei": 3, "vier": 4, "fünf": 5},
    kinds=(
        r"(?:(?:das |die |den |dem )?(?:wort|wörter|worte|wörtern|worten|ausdruck|vorkommen(?: von)?|stellen(?: mit)?) "
        r"|(?:(?:das|der|die|den|dem) )?(?:satz|namen?|zahl|teil|stelle|text|preis|datum|uhrzeit) (?=MARK)"
        r"|(?:das|der|die|den|dem|ein|einen) (?=MARK))"
    ),
    articles=r"(?:das|der|die|den|dem|ein|eine|einen|einem) ",
    positions=(r"(?:das|die|den|dem) COUNT(?: SIZE)? (?:wort|wörter|worte|wörtern|worten)",),
    ends={r"die SIZE letzten (?:wörter|worte)": -1, r"die SIZE ersten (?:wörter|worte)": 1},
    nothing=r"(?:gar )?nichts",
    sounds=r"(?:(?:ein|einen|eine|dem|den) )?(?:piep(?:ton|ser|en)?|stille|pause|geräusch|ton)",
    carried=("ersetze", "lösche"),
)
