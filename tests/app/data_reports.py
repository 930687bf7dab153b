"""Real reports of real image files for the tests of the Data tab."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from trainer.data_report import IssueKind, ReportedImage, ReportedIssue, write_report
from trainer.messages.data_info import DataSummary
from trainer.messages.events import DataChecked

CLASS_NAMES = ("2", "10", "cat")
WIDTHS = (20, 25, 26, 27)


def make_event(
    folder: Path,
    num_per_class: tuple[int, ...] = (40, 300, 260),
    issues: Iterable[ReportedIssue] = (),
    name: str = "report.db",
) -> DataChecked:
    """Write a report whose images are a few small JPEGs again and again, and return what a worker would say of it."""
    folder.mkdir(exist_ok=True)
    files = [make_jpeg(folder / f"{number}.jpg", (width, 20)) for number, width in enumerate(WIDTHS)]
    issues = list(issues)
    images = [
        ReportedImage(
            path=str(files[number % 4]),
            shown=f"animals/{CLASS_NAMES[class_idx]}/{number:04}.jpg",
            class_idxs=(class_idx,),
            split="validation" if number % 5 == 0 else "train",
            width=WIDTHS[number % 4],
            height=20,
            size_bytes=files[number % 4].stat().st_size,
        )
        for class_idx, num_images in enumerate(num_per_class)
        for number in range(num_images)
    ]
    counts = {
        split: [sum(image.split == split and image.class_idxs == (idx,) for image in images) for idx in range(3)]
        for split in ("train", "validation")
    }
    issue_counts = {kind.value: sum(issue.kind is kind for issue in issues) for kind in IssueKind}
    summary = DataSummary(
        layout="class_folders",
        class_names=list(CLASS_NAMES),
        counts=counts,
        issue_counts={kind: count for kind, count in issue_counts.items() if count},
        advice=["Class 2 has 40 images, class 10 has 300."],
        image_sides=[(20, 20), (25, 20), (27, 20)],
        num_bytes=1_500_000,
    )
    report_path = folder / name
    write_report(report_path, summary, images, issues)
    return DataChecked(path=str(folder), summary=summary, report_path=str(report_path))


def make_jpeg(path: Path, size: tuple[int, int], color: str = "red") -> Path:
    Image.new("RGB", size, color).save(path)
    return path


def make_issues(folder: Path) -> list[ReportedIssue]:
    """Return a pair that leaks, two files that cannot be read, and a duplicate."""
    folder.mkdir(exist_ok=True)
    one, other = make_jpeg(folder / "a.jpg", (30, 20)), make_jpeg(folder / "b.jpg", (30, 20), "blue")
    (folder / "broken.jpg").write_bytes(b"not an image")
    return [
        ReportedIssue(IssueKind.LEAK, str(one), "train/a.jpg", "In train and in validation.", str(other), "val/b.jpg"),
        ReportedIssue(IssueKind.UNREADABLE, str(folder / "broken.jpg"), "train/broken.jpg", "It is no image."),
        ReportedIssue(IssueKind.UNREADABLE, str(folder / "gone.jpg"), "train/Größe.jpg", "It is truncated."),
        ReportedIssue(IssueKind.DUPLICATE, str(one), "train/a.jpg", "The same file twice.", str(other), "train/b.jpg"),
    ]
