"""In the place of a model's tokenizer."""


class Words:
    """Words numbered by their length; counts how often it is asked."""

    context, vocabulary, padding, checksum, asked = 6, 30, 0, "words", 0

    def rows(self, texts, length):
        self.asked += 1
        rows = [[len(word) for word in text.split()] for text in texts]
        return [row[:length] for row in rows], sum(len(row) > length for row in rows)
