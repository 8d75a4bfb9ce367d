"""How people ask for changed words in the languages that the model speaks: tables, which `..instruction` reads."""

from .de import GERMAN
from .en import ENGLISH
from .fr import FRENCH
from .ja import JAPANESE
from .zh import CHINESE

LANGUAGES = (ENGLISH, FRENCH, GERMAN, CHINESE, JAPANESE)
