"""A scripted vision-language model and samples for the tests of tasks."""

from PIL import Image

from tasks.base import Answer, AnswerScores, Sample

PICTURE = Image.new("RGB", (4, 4))


def make_sample(references, key="1", prompt="what ?"):
    return Sample(key, PICTURE, prompt, tuple(references), key)


class Scripted:
    """Says the same to everybody; its loss is the image's mean, its first token the rounded brightness."""

    def __init__(self, text="red"):
        self.text, self.asked = text, []

    def generate(self, images, prompts, *, max_new_tokens):
        self.asked = list(prompts)
        return [Answer(self.text)] * len(prompts)

    def token_texts(self):
        return ["red", "Crim", "blue", None]

    def answers(self, prompts, answers):
        self.wanted = list(answers)

        def score(images, rows):
            mean = images.flatten(1).mean(1)
            return AnswerScores(mean, mean > 0.5, (mean * 4).long())

        return score
