"""What a selection found, in words."""

from omnisource.report.findings import cautions, findings


def test_every_kind_of_finding_is_told() -> None:
    matched = {"T": 0.4948, "samples": 1155, "right": 0.7355, "web": 263, "sure_before": 0.519, "sure_after": 0.7355}
    fitted = {"T": 2.5, "samples": 60, "nll_before": 1.314, "nll_after": 1.1}
    found = findings(
        {
            "temperatures": {"video": {"window": matched}, "image": {"image": fitted}},
            "query_trust": {"images (image)": 0.713, "clips (clip)": 0.99},
            "class_weights": {"films (window)": {"walk": 0.5, "sit": 2.0}},
            "kept": 3,
        }
    )
    assert found == [
        "video, windows: right for 74% of 1,155 held-out target samples, on average 52% sure of the web; "
        "temperature 0.49 makes that 74%",
        "image, images: temperature 2.50 fits 60 held-out target samples best (negative log-likelihood 1.31 before, "
        "1.10 after)",
        "queries of images (image): right for 71%, by how they and the teacher agree",
        "queries of clips (clip): right for 99%, by how they and the teacher agree; so much, the most there is, is "
        "also found where the teacher is too unsure to contradict",
        "films (window): classes weighted towards their shares in the target: sit x 2.00, walk x 0.50",
    ]
    assert findings({"kept": 3}) == []


def test_of_many_classes_the_ends_are_told() -> None:
    (found,) = findings({"class_weights": {"films": {f"class {n:03}": float(n) for n in range(400)}}})
    assert "class 399 x 399.00" in found and "388 between" in found and found.endswith("class 000 x 0.00")
    assert found.count("class ") == 12


def test_what_flatters_the_accuracies_is_told() -> None:
    assert cautions({"rows": 9, "dropped": 1}) == []
    found = cautions({"in_two_splits": 1234, "of_groups_in_two_splits": 7})
    assert [text.split(" are ")[0] for text in found] == ["1,234 test or val samples", "7 test or val samples"]
    assert "groups" in found[1] and all(text.endswith("part of the accuracies is memory.") for text in found)
