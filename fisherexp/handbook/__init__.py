"""The catalogue of methods as one page, made from what they declare: no method is imported."""

from fisherexp.handbook.card import Card, cards
from fisherexp.handbook.html import page
from fisherexp.handbook.markdown import text
