import hashlib
import json

from data import recorded, sources
from data.prompts import library
from data.split import leave_one_out
from methods.llmrec.pagerank import important_neighbours
from methods.llmrec.texts import augment, describe


def test_filled_prompts_are_those_of_the_recorded_answers() -> None:
    dataset = sources.load("ml-100k")
    catalogue = dataset.catalogue
    neighbours = important_neighbours(leave_one_out(dataset).train, catalogue.n_items)
    templates = {template.id: template for template in library.templates("augment")}
    file = recorded.path("ml-100k")
    assert file is not None
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    answer = {(record["item_id"], record["prompt"]): record["response"] for record in records}
    descriptions = [answer[item, "describe"] for item in catalogue.item_ids]
    filled = {"describe": describe(catalogue, templates)}
    for prompt in {record["prompt"] for record in records} - {"describe"}:
        filled[prompt] = augment(templates[prompt], catalogue, descriptions, neighbours)
    index = {item: n for n, item in enumerate(catalogue.item_ids)}
    found = [hashlib.sha256(filled[r["prompt"]][index[r["item_id"]]].encode()).hexdigest() for r in records]
    assert len(found) == 13_104
    assert found == [record["request_sha256"] for record in records]
