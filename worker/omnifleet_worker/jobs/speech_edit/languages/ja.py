"""Japanese: the verb stands at the end."""

from __future__ import annotations

from .language import Language

_POLITE = r"[ぁ-んー、]*+(?:願|下|欲|頂|致|結構)?+[ぁ-んー]*+"
_CHANGE = r"(?:変え|変更|置き?換え|置換|差し?替え|直し|書き?換え|書き直|修正|訂正|入れ替え|言い換え|し|なお)" + _POLITE
_DELETE = r"(?:削除|消去|消し|消す|消|カット|取り?除|取っ|取り|とっ|省い|省略|除い|除去|抜い|外し|なくし)" + _POLITE
_INSERT = r"(?:入れ|挿入|追加|加え|足し|付け|つけ|差し込|言っ)" + _POLITE
_SAY = r"(?:(?:に|と)?(?:言っ|し|変え|変更|直し|置き?換え)" + _POLITE + ")"
_ALL = r"(?P<all>全部|すべて|全て|ぜんぶ|全部とも|みんな)?"
_BEFORE = r"(?:の|直|すぐ)*(?:前|まえ)"
_AFTER = r"(?:の|直|すぐ)*(?:後ろ?|うしろ|あと|次)"
_BEGINNING = r"(?:最初|冒頭|先頭|文頭|初め|はじめ|頭)"
_END = r"(?:最後|末尾|文末|終わり|おわり)"

JAPANESE = Language(
    replace=(
        rf"OLD(?:を|は){_ALL}NEW(?:に|へ|と){_CHANGE}",
        r"OLD(?:を|は)NEW(?:に|へ)",
        rf"OLD(?:では?なく(?:て)?|じゃなく(?:て)?|の(?:代わり|かわり)に)、?NEW{_SAY}?",
        rf"NEW{_SAY}?、?OLDでは?なく",
        r"OLD(?:->|→|=>|⇒)NEW",
    ),
    delete=(rf"OLD(?:を|は){_ALL}{_DELETE}",),
    before=(
        rf"OLD{_BEFORE}に、?NEWを{_INSERT}",
        rf"NEWをOLD{_BEFORE}に{_INSERT}",
    ),
    after=(
        rf"OLD{_AFTER}に、?NEWを{_INSERT}",
        rf"NEWをOLD{_AFTER}に{_INSERT}",
    ),
    first=(rf"{_BEGINNING}に、?NEWを{_INSERT}", rf"NEWを{_BEGINNING}に{_INSERT}"),
    last=(rf"{_END}に、?NEWを{_INSERT}", rf"NEWを{_END}に{_INSERT}"),
    say=(rf"NEWと(?:言っ|言い)て?{_POLITE}", rf"(?:全部|全体|全文)をNEWに{_CHANGE}"),
    transcript=r"(?:新しい|新)(?:文字起こし|文章|文|テキスト|原稿)(?:は)?[:：]|(?:テキスト|文字起こし)[:：]",
    asking=(
        r"(?:置き?換え|変更し|変えて|差し替え|書き換え|修正し|訂正し|削除|消して|カットし|取り除|挿入|追加し|付け加え"
        r"|に直し|代わりに|ではなく)"
    ),
    starting=r"(?!)",
    openings=r"(?:そして|それから|また|あと|次に|では|じゃあ|、)",
    apologies=r"(?:すみません|すいません|ごめん(?:なさい)?|申し訳(?:ありません|ございません)|こんにちは)",
    courtesies=r"(?:お願いします)",
    everywhere=r"(?:全部|すべて|全て|ぜんぶ)(?!の)",
    listing=r"と|、|や|および|及び",
    counts={
        r"(?:最初|[一1１](?:番目|つ目|個目|回目|度目))の": 1,
        r"(?:[二2２](?:番目|つ目|個目|回目|度目))の": 2,
        r"(?:[三3３](?:番目|つ目|個目|回目|度目))の": 3,
        r"(?:[四4４](?:番目|つ目|個目|回目|度目))の": 4,
        r"(?:[五5５](?:番目|つ目|個目|回目|度目))の": 5,
        r"(?:最後|後ろ)から(?:二|2|２)(?:番目|つ目)の": -2,
        r"最後の": -1,
        r"(?:すべて|全て|全部|ぜんぶ|全|あらゆる)の|各": 0,
        r"\d+(?:番目|つ目|個目|回目|度目)の": 0,
    },
    numbers={"二": 2, "三": 3, "四": 4, "五": 5},
    kinds=r"(?:単語|言葉|語)の?(?=MARK)",
    kinds_after=r"(?:(?:と(?:いう|言う)|って)(?:言葉|単語|語|部分|ところ|文字)?|の(?:ところ|部分|箇所)|(?<=MARK)の?(?:部分|ところ))",
    positions=(r"COUNT(?:SIZE)?文字",),
    unnameable=r"COUNT(?:SIZE)?(?:つの)?(?:単語|言葉|語|文|フレーズ)",
    carried=("", ""),
)
