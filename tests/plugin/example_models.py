"""A family of victims from outside: models that say the word whose embedding is nearest to the image's."""

from collections.abc import Mapping

from bench.models.victims.family import Setting, Source


class Parrot:
    """Folders whose config.json has model_type "parrot" and lists the words that it can say."""

    about = "says the word that is nearest to the image"
    settings: Mapping[str, Setting] = {"manner": Setting("how it says it", ("plain", "loud"))}
    protocols: Mapping[str, Mapping[str, str]] = {"paper": {"manner": "loud"}}

    def owns(self, source: Source) -> bool:
        return source.model_type == "parrot"

    def load(self, source: Source, encoder, settings: Mapping[str, str], device):
        from example_parrot import LoadedParrot

        return LoadedParrot(encoder, tuple(source.config["words"]), settings)
