"""French."""

from __future__ import annotations

from .language import Language

_REPLACE = r"(?:remplac(?:e[rz]?|ons)|substitue[rz]?)"
_CHANGE = r"(?:chang(?:e[rz]?|eons)|transforme[rz]?|corrige[rz]?|modifie[rz]?|convertis|remplace[rz]?)"
_DELETE = r"(?:supprime[rz]?|efface[rz]?|enl[eè]ve[rz]?|retire[rz]?|coupe[rz]?|[ôo]te[rz]?|vire[rz]?|élimine[rz]?)"
_INSERT = r"(?:ajoute[rz]?|ins[eéè]re[rz]?|mets|mettez|mettre|place[rz]?|rajoute[rz]?)"
_SAY = r"(?:dis|dites|dire|mets|mettez|mettre|utilise[rz]?|écris|écrire|écrivez)"

FRENCH = Language(
    replace=(
        rf"{_REPLACE} OLD par NEW",
        rf"{_CHANGE} OLD (?:en|par|pour) NEW",
        rf"{_SAY} NEW,? (?:au lieu d(?:e |['’])|à la place d(?:e |['’])|plut[ôo]t que (?:de )?|et non(?: pas)? )OLD",
        rf"(?:au lieu|à la place) d(?:e |['’])OLD,? {_SAY} NEW",
        r"(?:c['’]est|j['’]ai dit) NEW,? (?:et )?(?:pas|non) OLD",
        r"(?:ce n['’]est )?pas OLD,? (?:mais|c['’]est) NEW",
        r"OLD (?:doit|devrait) (?:être remplacée?s? par|être changée?s? en|devenir|être) NEW",
        r"OLD ?(?:->|→|=>|⇒) ?NEW",
    ),
    delete=(rf"{_DELETE} OLD",),
    before=(rf"{_INSERT} NEW (?:juste )?(?:avant|devant) OLD", rf"(?:juste )?avant OLD,? {_INSERT} NEW"),
    after=(rf"{_INSERT} NEW (?:juste )?(?:après|derrière) OLD", rf"(?:juste )?après OLD,? {_INSERT} NEW"),
    first=(rf"{_INSERT} NEW (?:tout )?au (?:début|commencement)(?: de la phrase)?",),
    last=(rf"{_INSERT} NEW (?:tout )?à la fin(?: de la phrase)?",),
    say=(r"(?:dis|dites|dire) NEW", r"(?:remplace[rz]?|change[rz]?) tout (?:par|en) NEW"),
    transcript=r"(?:la )?(?:nouvelle )?transcription ?[:：]|(?:le )?(?:nouveau )?texte ?[:：]|(?:dis|dites) ?[:：]",
    asking=(
        r"\b(?:remplac(?:e[rz]?|ons)|substitue[rz]?|chang(?:e[rz]?|eons)|corrige[rz]?|modifie[rz]?|supprime[rz]?"
        r"|efface[rz]?|enl[eè]ve[rz]?|retire[rz]?|coupe[rz]?|ajoute[rz]?|rajoute[rz]?|ins[eéè]re[rz]?|mets|mettez|mettre|vire[rz]?"
        r"|dis|dites|au lieu d(?:e\b|['’])|à la place d(?:e\b|['’])|plut[ôo]t que)"
    ),
    starting=r"\b(?:transforme[rz]?|convertis|[ôo]te[rz]?|vire[rz]?|élimine[rz]?|place[rz]?|dire|utilise[rz]?|écris|avant"
    r"|après)\b",
    openings=(
        r"(?:et|puis|ensuite|aussi|alors|bonjour|salut|(?:peux|pourrais)[- ]tu|(?:pouvez|pourriez)[- ]vous"
        r"|est-ce que (?:tu peux|vous pouvez)|tu (?:peux|pourrais)|vous (?:pouvez|pourriez)"
        r"|je (?:voudrais|veux)|j['’]aimerais|merci de|veuillez"
        r"|il (?:faut|faudrait)|s['’]il (?:te|vous) pla[iî]t|stp|svp)(?!\w),?"
    ),
    preambles=(
        r"(?:désolée?|pardon|excuse[sz]?(?:-moi)?|oups|bonjour|bonsoir|salut)\b"
        r"|[^.,!?;:]*\b(?:faux|fausse|erreur|trompée?|incorrecte?)\b"
    ),
    courtesies=r"(?:s['’]il (?:te|vous) pla[iî]t|\bstp\b|\bsvp\b|\bmerci(?: d['’]avance)?\b)",
    everywhere=r"\b(?:partout|à chaque fois|chaque fois)\b",
    listing=r",? et |, ?|,? ou ",
    determiners=r"(?:(?:le|la|les) (?:tout(?:e|es|s)? )?|l['’])",
    counts={
        r"premi(?:er|ère)s?|1(?:er|re|ère)": 1,
        r"deuxième|seconde?|2e|2ème": 2,
        r"troisième": 3,
        r"quatrième": 4,
        r"cinquième": 5,
        r"avant-derni(?:er|ère)": -2,
        r"derni(?:er|ère)s?": -1,
        r"(?:tous|toutes)(?: (?:les|ces))?|chaque|chacun(?:e)? des": 0,
        r"\d+(?:e|ème|er)": 0,
    },
    counts_after={r"(?:du|au) (?:tout )?début": 1, r"(?:de|à) la fin": -1},
    numbers={"deux": 2, "trois": 3, "quatre": 4, "cinq": 5},
    kinds=(
        r"(?:(?:le |les )?mots? |(?:la |les )?(?:phrase|expression|occurrence)s? (?:d(?:e |u mot |['’]))?"
        r"|(?:(?:le|la|les) )?(?:noms?|nombres?|chiffres?|parties?|passages?|prix|dates?|textes?) (?=MARK)"
        r"|(?:le|la|les) (?=MARK))"
    ),
    articles=r"(?:(?:le|la|les|un|une|du|des) |l['’] ?)",
    positions=(r"(?:(?:le|la|les) |l['’])(?:SIZE )?COUNT mots?", r"(?:les )COUNT SIZE mots"),
    nothing=r"rien(?: du tout)?",
    sounds=r"(?:(?:un|une|du|le|la) )?(?:bip|silence|pause|bruit|son)s?",
    carried=("remplace", "supprime"),
)
