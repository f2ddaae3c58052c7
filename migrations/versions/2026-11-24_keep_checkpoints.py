"""Keep checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "b1c5e0a72f94"
down_revision = "6ed9ec403746"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of a blob that is already there nobody can say who knows its hash.
    op.add_column("blobs", sa.Column("unshared", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("step", sa.String(length=100), nullable=False),
        sa.Column("update", sa.BigInteger(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_checkpoints_job_id_jobs", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name="fk_checkpoints_sha256_blobs"),
        sa.PrimaryKeyConstraint("job_id", "step", name="pk_checkpoints"),
    )


def downgrade() -> None:
    op.drop_table("checkpoints")
    with op.batch_alter_table("blobs") as blobs:
        blobs.drop_column("unshared")
